// The element-wise part of the vocabulary head on a CPU: a chunk of logits becomes its own gradient, in place.
//
// Per token, a row of V logits: one pass for the largest logit and the sum of exponentials, one for the two sums that
// swaps need, then the loss and the rates of the gradient from these few numbers in double (the formulas of
// closedform.py; docs/theory.md eq. 17 to 22), and one pass that writes the gradient over the logits. A row stays in a
// core's own cache between the passes, so the chunk goes through main memory once, and no exponential is ever stored.
//
// Loops over the vocabulary are plain loops that the compiler turns into vector instructions. Store is the type of the
// logits, Real that of the arithmetic: float for float and bfloat16, double for double. Sums over blocks of `kBlock`
// tokens are in Real, over blocks in double.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace {

// All fields are 8 bytes wide; mirrored by `Job` in native.py, which says what they are.
struct Job {
    void *logits;
    std::int64_t dtype, num_tokens, vocab_size, mask_id;
    const std::int64_t *clean, *noisy;
    const double *log_snr, *weight;
    std::int64_t noise;
    const double *share_logit, *share_slope;
    const double *log_reference;
    const void *reference, *rarity;
    double log_highest, max_log_ratio, multiplier;
    std::int64_t wants_gradient, num_threads;
    double *kl, *itakura_saito, *integrand;
};

enum Dtype : std::int64_t { kFloat32 = 0, kBfloat16 = 1, kFloat64 = 2 };
enum Noise : std::int64_t { kCrossEntropy = 0, kMasked = 1, kSwaps = 2 };

constexpr std::int64_t kBlock = 1024;

// ---- numbers ----

struct Bfloat16 {
    std::uint16_t bits;
};

template <class To, class From>
inline To bits_as(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To result;
    std::memcpy(&result, &value, sizeof result);
    return result;
}

inline float load(float value) { return value; }
inline double load(double value) { return value; }
inline float load(Bfloat16 value) { return bits_as<float>(std::uint32_t{value.bits} << 16); }

inline void store(float &place, float value) { place = value; }
inline void store(double &place, double value) { place = value; }
inline void store(Bfloat16 &place, float value) {  // to nearest, ties to even
    const std::uint32_t bits = bits_as<std::uint32_t>(value);
    place.bits = static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Below e^lowest there are no normal numbers; such results are 0.
template <class Real>
constexpr Real lowest_exponent = std::is_same_v<Real, float> ? Real(-87) : Real(-708);

// e^x for x <= 0, relative error below 2^-23. x = n log 2 + r, |r| <= log(2)/2; the polynomial is a minimax fit of
// (e^r - 1 - r) / r^2. NaN stays NaN.
inline float exponential(float x) {
    constexpr float kRound = 0x1.8p23f;  // adding it leaves the nearest integer in the low bits
    const float kept = x < -88.0f ? -88.0f : x;
    const float shifted = kept * 1.44269504f + kRound;
    const float n = shifted - kRound;
    const float r = (kept - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
    const float p = 0.49999994f + r * (0.166665211f + r * (0.041668389f + r * (0.00836871751f + r * 0.00138145988f)));
    const float power = bits_as<float>((bits_as<std::uint32_t>(shifted) << 23) + 0x3f800000u);
    const float result = (1.0f + (r + r * r * p)) * power;
    return x < lowest_exponent<float> ? 0.0f : result;
}

inline double exponential(double x) { return x < lowest_exponent<double> ? 0.0 : std::exp(x); }

// log(1 + x) for finite x >= 0, relative error below 2^-23. 1 + x = 2^k (1 + m), m in [-1/4, 1/2], m formed from x
// itself so that a small x keeps its digits; the polynomial is a minimax fit of (log(1 + m) - m) / m^2.
inline float log_one_plus(float x) {
    const std::uint32_t exponent = (bits_as<std::uint32_t>(1.0f + x) - 0x3f400000u) & 0xff800000u;
    const float power = bits_as<float>(0x40800000u - exponent);  // 4 * 2^-k
    const float m = bits_as<float>(bits_as<std::uint32_t>(x) - exponent) + (0.25f * power - 1.0f);
    const float high = -0.131622374f + m * (0.104483396f + m * -0.0449096523f);
    const float low = 0.333334535f + m * (-0.250000536f + m * (0.199906066f + m * (-0.166477665f + m * 0.144820616f)));
    const float k = static_cast<float>(static_cast<std::int32_t>(exponent)) * 0x1p-23f;
    const float square = m * m;
    return k * 0.693147181f + (m + square * (-0.5f + m * (low + square * square * m * high)));
}

inline double log_one_plus(double x) { return std::log1p(x); }

double log_sigmoid(double v) { return v < 0 ? v - std::log1p(std::exp(v)) : -std::log1p(std::exp(-v)); }
double softplus(double v) { return -log_sigmoid(-v); }
double sigmoid(double v) { return 1.0 / (1.0 + std::exp(-v)); }
double log_add_exp(double a, double b) { return a > b ? a + std::log1p(std::exp(b - a)) : b + std::log1p(std::exp(a - b)); }

// ---- one token in double: closedform.py, which names and derives all of it ----

struct Levels {
    double signal, weight, log_weight;
    double mass, log_odds, log_odds_clean, log_odds_noisy;
    bool kept, swapped;
};

struct Sums {
    double log_clean, log_noisy, mean_log_ratio, mean_gap;
    double log_ratio;  // d = log(q_x / p_x), which follows from log_clean
};

struct Losses {
    double kl, itakura_saito, integrand;
};

struct Rates {
    double centre, at_clean, spread, at_noisy;
};

double log_reference(const Job &job, std::int64_t id) {
    if (job.log_reference != nullptr) return job.log_reference[id];
    return id == job.mask_id ? -std::numeric_limits<double>::infinity() : -std::log(job.vocab_size - 1.0);
}

Levels token_levels(const Job &job, std::int64_t token) {
    Levels at{};
    at.signal = at.weight = 1.0;
    if (job.noise == kCrossEntropy) return at;
    const double log_snr = job.log_snr[token];
    at.signal = sigmoid(log_snr);
    if (job.noise == kMasked) return at;  // every token with loss is masked, where the weight is 1
    const std::int64_t clean = job.clean[token], noisy = job.noisy[token];
    const double share_logit = job.share_logit[token], slope = job.share_slope[token];
    const double log_share = log_sigmoid(share_logit), share = std::exp(log_share), mask_share = sigmoid(-share_logit);
    at.kept = noisy == clean;
    const bool masked = noisy == job.mask_id;
    at.swapped = !at.kept && !masked;
    const double log_at_noisy = log_reference(job, noisy);
    const double arrival = masked ? (1.0 + slope) - slope * mask_share : (1.0 - slope) + slope * share;
    at.log_weight = std::log(arrival);
    if (at.kept) at.log_weight += log_sigmoid(log_share + log_at_noisy - log_snr);
    at.weight = std::exp(at.log_weight);
    at.mass = sigmoid(-log_snr) * share;
    at.log_odds = log_snr - log_share;
    at.log_odds_clean = at.log_odds - log_reference(job, clean);
    at.log_odds_noisy = at.log_odds - log_at_noisy;
    return at;
}

// Eq. 19.
double log_ratio_at_clean(const Levels &at, double log_clean) {
    return softplus(std::log(-std::expm1(log_clean)) - log_add_exp(-at.log_odds_clean, log_clean));
}

// w (e^d - 1); w e^d is at most u although e^d alone may overflow.
double weighted_excess(const Levels &at, double log_ratio) {
    return log_ratio < 1.0 ? at.weight * std::expm1(log_ratio) : std::exp(at.log_weight + log_ratio) - at.weight;
}

// Eq. 20 and 21.
Losses token_losses(const Job &job, const Levels &at, const Sums &sums) {
    if (job.noise != kSwaps) {
        const double kl = -at.signal * sums.log_clean;
        return {kl, 0.0, kl};
    }
    const double d = sums.log_ratio;
    double noise = 0.0;
    if (at.mass > 0) {
        noise = at.signal * std::exp(-at.log_odds_clean) * softplus(at.log_odds_clean) - at.mass * sums.mean_log_ratio;
    }
    const double kl = at.signal * d + noise;
    if (at.kept) return {kl, std::expm1(d) - d, at.weight * (kl - d) + weighted_excess(at, d)};
    if (!at.swapped) return {kl, 0.0, at.weight * kl};
    const double log_odds = at.log_odds_noisy + sums.log_noisy;
    const double itakura_saito = softplus(log_odds) - sigmoid(log_odds);
    return {kl, itakura_saito, at.weight * (kl + itakura_saito)};
}

// Eq. 22, times `weight`.
Rates logit_gradient(const Job &job, const Levels &at, const Sums &sums, double weight) {
    const double spread = at.weight * at.signal;
    if (job.noise != kSwaps) return {weight * spread, -weight * spread, 0.0, 0.0};
    const double excess = at.kept ? weighted_excess(at, sums.log_ratio) : 0.0;
    const double at_clean = -sigmoid(at.log_odds_clean + sums.log_clean) * (spread + excess);
    const double posterior = at.swapped ? sigmoid(at.log_odds_noisy + sums.log_noisy) : 0.0;
    const double at_noisy = at.weight * posterior * posterior;
    return {weight * (spread * sums.mean_gap - at_clean - at_noisy), weight * at_clean, weight * spread, weight * at_noisy};
}

// ---- one row of logits ----

// The reference distribution as the sums over the vocabulary use it: r_j = e_j * rarity_j, rarity relative to that of the
// token with the largest logit, and mass_j proportional to rho_j.

struct NoSwaps {  // pure masking, or no noise at all: neither sum is needed
    static constexpr bool kSwaps = false, kAlike = true;
};

template <class Real>
struct Uniform {
    static constexpr bool kSwaps = true, kAlike = true;
    Real rarity(std::int64_t) const { return 1; }
    Real mass(std::int64_t) const { return 1; }
    double measure_from(std::int64_t) { return 1.0; }
    double mass_unit(const Job &job) const { return std::exp(job.log_highest); }
};

template <class Real>
struct Weighted {
    static constexpr bool kSwaps = true, kAlike = false;
    const Real *rarities, *masses;
    Real unit = 1;
    Real rarity(std::int64_t j) const { return rarities[j] * unit; }
    Real mass(std::int64_t j) const { return masses[j]; }
    double measure_from(std::int64_t top) {
        unit = 1 / rarities[top];
        return rarities[top];
    }
    double mass_unit(const Job &) const { return 1.0; }
};

template <class Store, class Real, class Reference>
struct Row {
    Store *logits;
    std::int64_t size;
    Reference reference;
    Real highest = std::numeric_limits<Real>::lowest();  // the largest logit
    std::int64_t top = 0;                                // where it is
    Real top_ratio = 0;                                  // t there

    Real exponent(std::int64_t j) const { return exponential(load(logits[j]) - highest); }

    std::int64_t block_end(std::int64_t start) const { return start + kBlock < size ? start + kBlock : size; }

    // Finds the largest logit; returns the sum of the exponentials. A NaN is never the largest, but it reaches the sum.
    double sum_exponentials() {
        double total = 0.0;
        for (std::int64_t start = 0; start < size; start += kBlock) {
            const std::int64_t end = block_end(start);
            Real largest = highest, sum = 0;
#pragma omp simd reduction(max : largest)
            for (std::int64_t j = start; j < end; ++j) {
                const Real logit = load(logits[j]);
                largest = logit > largest ? logit : largest;
            }
#pragma omp simd reduction(+ : sum)
            for (std::int64_t j = start; j < end; ++j) sum += exponential(load(logits[j]) - largest);
            if (largest > highest) {
                total *= std::exp(static_cast<double>(highest) - largest);
                highest = largest;
                top = start;
            }
            total += sum;
        }
        while (top + 1 < size && load(logits[top]) != highest) ++top;
        return total;
    }

    // e (1 - r) / (1 + t)
    static Real gap(Real exponent, Real relative, Real ratio) { return exponent * (1 - relative) / (1 + ratio); }

    // Sums over j of mass_j log(1 + t_j) and of the gaps. Where all masses are alike, pairs share a logarithm:
    // (1 + a)(1 + b) = 1 + (a + b + ab), which loses no digit because nothing is negative.
    void sum_ratios(double &log_ratios, double &gaps) const {
        for (std::int64_t start = 0; start < size; start += kBlock) {
            const std::int64_t end = block_end(start), half = Reference::kAlike ? (end - start) / 2 : 0;
            Real log_sum = 0, gap_sum = 0;
#pragma omp simd reduction(+ : log_sum, gap_sum)
            for (std::int64_t j = start; j < start + half; ++j) {
                const Real left = exponent(j), right = exponent(j + half);
                const Real a = left * top_ratio, b = right * top_ratio;
                log_sum += log_one_plus(a + (b + a * b));
                gap_sum += gap(left, left, a) + gap(right, right, b);
            }
#pragma omp simd reduction(+ : log_sum, gap_sum)
            for (std::int64_t j = start + 2 * half; j < end; ++j) {
                const Real own = exponent(j), relative = own * reference.rarity(j), ratio = relative * top_ratio;
                log_sum += reference.mass(j) * log_one_plus(ratio);
                gap_sum += gap(own, relative, ratio);
            }
            log_ratios += log_sum;
            gaps += gap_sum;
        }
    }

    // The gradient away from x and z.
    Real smooth(std::int64_t j, Real centre, Real spread) const {
        const Real own = exponent(j);
        if constexpr (Reference::kSwaps) {
            const Real relative = own * reference.rarity(j);
            return centre * own - spread * gap(own, relative, relative * top_ratio);
        }
        return centre * own;
    }

    void overwrite_smoothly(Real centre, Real spread) const {
        const Row row = *this;  // a copy that the stores cannot change
#pragma omp simd
        for (std::int64_t j = 0; j < row.size; ++j) store(row.logits[j], row.smooth(j, centre, spread));
    }
};

template <class Store, class Real, class Reference>
void process_token(const Job &job, std::int64_t token, const Reference &reference) {
    Store *logits = static_cast<Store *>(job.logits) + token * job.vocab_size;
    Row<Store, Real, Reference> row{logits, job.vocab_size, reference};
    const std::int64_t clean = job.clean[token], noisy = job.noisy[token];
    store(logits[job.mask_id], -std::numeric_limits<Real>::infinity());
    const Levels at = token_levels(job, token);
    const double total = row.sum_exponentials(), log_total = std::log(total);
    Sums sums{static_cast<double>(load(logits[clean])) - row.highest - log_total, 0.0, 0.0, 0.0, 0.0};
    double gap_scale = 0.0;
    if constexpr (Reference::kSwaps) {
        const double rarity_at_top = row.reference.measure_from(row.top);
        const double log_ratio = std::fmin(at.log_odds - job.log_highest - log_total, job.max_log_ratio);
        const double top_ratio = std::exp(log_ratio) * rarity_at_top;
        row.top_ratio = static_cast<Real>(top_ratio);
        gap_scale = top_ratio / (1.0 + top_ratio) / total;
        row.sum_ratios(sums.mean_log_ratio, sums.mean_gap);
        sums.log_noisy = static_cast<double>(load(logits[noisy])) - row.highest - log_total;
        sums.mean_log_ratio *= row.reference.mass_unit(job);
        sums.mean_gap *= gap_scale;
        sums.log_ratio = log_ratio_at_clean(at, sums.log_clean);
    }
    const Losses losses = token_losses(job, at, sums);
    job.kl[token] = losses.kl;
    job.itakura_saito[token] = losses.itakura_saito;
    job.integrand[token] = losses.integrand;
    if (!job.wants_gradient) return;
    const Rates rates = logit_gradient(job, at, sums, job.weight[token] * job.multiplier);
    const Real centre = static_cast<Real>(rates.centre / total), spread = static_cast<Real>(rates.spread * gap_scale);
    const Real at_clean = row.smooth(clean, centre, spread) + static_cast<Real>(rates.at_clean);
    const Real at_noisy = at.swapped ? row.smooth(noisy, centre, spread) + static_cast<Real>(rates.at_noisy) : 0;
    row.overwrite_smoothly(centre, spread);
    store(logits[clean], at_clean);
    if (at.swapped) store(logits[noisy], at_noisy);
}

template <class Store, class Real, class Reference>
void process_tokens(const Job &job, const Reference &reference) {
    const int grain = static_cast<int>(1 + 16384 / job.vocab_size);
#pragma omp parallel for num_threads(static_cast<int>(job.num_threads)) schedule(dynamic, grain)
    for (std::int64_t token = 0; token < job.num_tokens; ++token) process_token<Store, Real>(job, token, reference);
}

template <class Store, class Real>
void process(const Job &job) {
    if (job.noise != kSwaps) {
        process_tokens<Store, Real>(job, NoSwaps{});
    } else if (job.rarity == nullptr) {
        process_tokens<Store, Real>(job, Uniform<Real>{});
    } else {
        const auto *rarities = static_cast<const Real *>(job.rarity), *masses = static_cast<const Real *>(job.reference);
        process_tokens<Store, Real>(job, Weighted<Real>{rarities, masses});
    }
}

bool is_inside(const std::int64_t *ids, const Job &job) {
    for (std::int64_t token = 0; token < job.num_tokens; ++token) {
        if (ids[token] < 0 || ids[token] >= job.vocab_size) return false;
    }
    return true;
}

}  // namespace

// 0, or 1 where a token id is outside the vocabulary and nothing was done.
extern "C" int noiselaw_head(const Job *job) {
    if (!is_inside(job->clean, *job) || (job->noise == kSwaps && !is_inside(job->noisy, *job))) return 1;
    if (job->dtype == kFloat32) process<float, float>(*job);
    if (job->dtype == kBfloat16) process<Bfloat16, float>(*job);
    if (job->dtype == kFloat64) process<double, double>(*job);
    return 0;
}

// For the tests of their stated errors: e^x of x <= 0 and log(1 + x) of x >= 0, in place.
extern "C" void noiselaw_exponential(float *values, std::int64_t num) {
    for (std::int64_t i = 0; i < num; ++i) values[i] = exponential(values[i]);
}

extern "C" void noiselaw_log_one_plus(float *values, std::int64_t num) {
    for (std::int64_t i = 0; i < num; ++i) values[i] = log_one_plus(values[i]);
}
