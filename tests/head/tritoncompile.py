"""Compiles the Triton kernels for an H100, which needs no GPU. The interpreter alone would check no types."""

from triton import compiler
from triton.backends.compiler import GPUTarget

from noiselaw.head import triton as kernels

NUMBERS_PER_ROW = ("log_top_odds", "sums", "scales", "centre", "at_clean", "spread", "at_noisy")


def argument_type(name: str, logits: str, constants: dict[str, object]) -> str:
    if name in constants:
        return "constexpr"
    if name in NUMBERS_PER_ROW:
        return "*fp64"
    types = {"logits": logits, "clean": "*i64", "noisy": "*i64", "rarity": "*fp32", "probs": "*fp32"}
    return types.get(name, "fp32" if name == "max_log_ratio" else "i32")


def main() -> None:
    for logits in ("*fp32", "*bf16", "*fp16"):
        for swaps, weighted in ((False, False), (True, False), (True, True)):
            for kernel in (kernels._sum_row, kernels._write_gradient):
                constants = {"SWAPS": swaps, "WEIGHTED": weighted, "VOCAB_SIZE": 131072, "BLOCK": kernels.MAX_BLOCK}
                if not weighted:
                    constants |= {name: None for name in ("rarity", "probs") if name in kernel.arg_names}
                types = {name: argument_type(name, logits, constants) for name in kernel.arg_names}
                positions = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
                source = compiler.ASTSource(kernel, types, constexprs=positions)
                compiled = compiler.compile(
                    source, target=GPUTarget("cuda", 90, 32), options={"num_warps": kernels.NUM_WARPS}
                )
                assert len(compiled.asm["cubin"]) > 0


if __name__ == "__main__":
    main()
