"use strict";
// Numbers as Python writes them: rounded from the exact binary value, ties to even (JavaScript's own formats round them up).
// And as noiselaw/report/phrases.py writes them for people.

const numerals = (() => {
  const MINUS = "\u2212", SUPERSCRIPTS = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
  const UNITS = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]];

  /** A positive number as `count` significant digits and an exponent: d.ddd * 10^exponent. */
  function significant(value, count) {
    const [mantissa, exponent] = value.toExponential(80).split("e"), all = mantissa.replace(".", "");
    if (count < 1) return { digits: count === 0 && /^(5.*[1-9]|[6-9])/.test(all) ? "1" : "0", exponent: Number(exponent) + 1 };
    const rest = all.slice(count), last = Number(all[count - 1]);
    const up = /^5.*[1-9]/.test(rest) || /^[6-9]/.test(rest) || (/^50*$/.test(rest) && last % 2 === 1);
    const digits = String(BigInt(all.slice(0, count)) + (up ? 1n : 0n));
    return digits.length > count ? { digits: digits.slice(0, count), exponent: Number(exponent) + 1 } : { digits, exponent: Number(exponent) };
  }

  function grouped(value, decimals = 0) {
    const [whole, part] = fixed(value, decimals).split(".");
    return whole.replace(/\B(?=(\d{3})+$)/g, ",") + (part === undefined ? "" : `.${part}`);
  }

  /** f"{value:.{decimals}f}" */
  function fixed(value, decimals) {
    const size = Math.abs(value), sign = value < 0 || Object.is(value, -0) ? "-" : "";
    if (size === 0) return sign + (decimals ? `0.${"0".repeat(decimals)}` : "0");
    const place = Number(size.toExponential(80).split("e")[1]), { digits, exponent } = significant(size, place + decimals + 1);
    const all = BigInt(digits) === 0n ? "0" : digits.padEnd(exponent + decimals + 1, "0"), padded = all.padStart(decimals + 1, "0");
    return sign + (decimals ? `${padded.slice(0, -decimals)}.${padded.slice(-decimals)}` : padded);
  }

  const trimmed = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  const withPoint = (digits) => (digits.length > 1 ? `${digits[0]}.${digits.slice(1)}` : digits);
  const power = (exponent) => `e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;

  /** f"{value:.{count}g}" */
  function general(value, count = 6) {
    if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
    if (value === 0) return Object.is(value, -0) ? "-0" : "0";
    const { digits, exponent } = significant(Math.abs(value), count), sign = value < 0 ? "-" : "";
    if (exponent < -4 || exponent >= count) return sign + trimmed(withPoint(digits)) + power(exponent);
    if (exponent < 0) return sign + trimmed(`0.${"0".repeat(-exponent - 1)}${digits}`);
    return sign + trimmed(exponent + 1 < count ? `${digits.slice(0, exponent + 1)}.${digits.slice(exponent + 1)}` : digits);
  }

  /** repr(float(value)) */
  function repr(value) {
    if (!Number.isFinite(value)) return general(value);
    const [mantissa, exponent] = value.toExponential().split("e"), place = Number(exponent);
    if (value !== 0 && (place < -4 || place >= 16)) return mantissa + power(place);
    const text = String(value);
    return text.includes(".") ? text : `${text}.0`;
  }

  function roundEven(value) {
    const below = Math.floor(value), part = value - below;
    return part > 0.5 || (part === 0.5 && below % 2 !== 0) ? below + 1 : below;
  }

  function scientific(value, count = 3) {
    if (value === 0) return "0";
    const { digits, exponent } = significant(Math.abs(value), count);
    const mantissa = (value < 0 ? "-" : "") + trimmed(withPoint(digits)), raised = `10${[...String(exponent)].map((one) => SUPERSCRIPTS[one]).join("")}`;
    return mantissa === "1" ? raised : `${mantissa}×${raised}`;
  }

  function counted(value, count = 3) {
    const rounded = Number(general(value, count)), unit = UNITS.find(([size]) => Math.abs(rounded) >= size);
    return unit ? general(rounded / unit[0], count) + unit[1] : general(rounded, count);
  }

  function duration(seconds) {
    if (seconds < 90) return `${fixed(seconds, 0)} s`;
    const minutes = roundEven(seconds / 60);
    return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }

  const percent = (share, decimals = 0) => `${fixed(100 * share, decimals)} %`;

  return { counted, duration, fixed, general, grouped, percent, repr, roundEven, scientific, MINUS };
})();
