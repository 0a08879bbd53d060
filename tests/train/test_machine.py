"""The machine as a run sees it: which library multiplies float32 matrices, and that it is float32 they come out as."""

import pytest
import torch

from noiselaw.files import read_json
from noiselaw.head.kernels import describe_kernel
from noiselaw.train import machine
from noiselaw.train.loop import train
from noiselaw.train.machine import (
    choose_float32_products,
    float32_products,
    matmul_flops_per_second,
    product_error,
    resolve_device,
    slow_bfloat16,
)
from noiselaw.train.throughput import measure_throughput

CPU = torch.device("cpu")


def test_the_chosen_products_are_float32():
    before = torch.backends.mkldnn.matmul.fp32_precision
    with float32_products(choose_float32_products("auto", CPU)):
        assert product_error() < 1e-6
    assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_a_library_that_rounds_is_not_chosen(monkeypatch):
    monkeypatch.setattr(machine, "product_error", lambda: 2e-3)
    assert choose_float32_products("auto", CPU) == "torch"
    assert choose_float32_products("onednn", CPU) == "onednn"


def test_rounding_to_bfloat16_would_be_noticed():
    left, right = torch.randn(64, 512), torch.randn(512, 64)
    exact = left.double() @ right.double()
    rounded = left.bfloat16().double() @ right.bfloat16().double()
    assert (rounded - exact).norm() / exact.norm() > machine.MAX_PRODUCT_ERROR


def test_a_run_records_its_choice_and_leaves_torch_as_it_was(run_spec, tmp_path):
    before = torch.backends.mkldnn.matmul.fp32_precision
    train(run_spec(**{"runtime.float32_products": "torch"}), tmp_path / "run", [])
    assert read_json(tmp_path / "run" / "run.json")["machine"]["float32_products"] == "torch"
    assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_both_libraries_train_alike(run_spec, tmp_path):
    losses = [
        train(run_spec(**{"runtime.float32_products": name}), tmp_path / name, [])["validation"]["loss"]
        for name in ("torch", "onednn" if choose_float32_products("auto", CPU) == "onednn" else "torch")
    ]
    assert abs(losses[0] - losses[1]) < 1e-4 * losses[0]


def test_throughput_is_measured_and_nothing_written(run_spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = measure_throughput(run_spec(), seconds=0.2)
    assert found.tokens_per_second == pytest.approx(found.steps * 4 * 16 / found.seconds)
    assert found.seconds >= 0.2
    assert list(tmp_path.iterdir()) == []


def test_a_run_records_its_head_kernel_and_both_train_alike(run_spec, tmp_path):
    losses = {}
    for name in ("torch", "auto"):
        folder = tmp_path / name
        losses[name] = train(run_spec(**{"runtime.head_kernel": name}), folder, [])["validation"]["loss"]
        assert read_json(folder / "run.json")["machine"]["head_kernel"] == describe_kernel(name, CPU)
    assert abs(losses["torch"] - losses["auto"]) < 1e-4 * losses["torch"]


@pytest.mark.parametrize(
    ("device", "message"),
    [("cudaa", "no device torch knows; use auto, cpu or cuda"), ("cuda:99", r"torch sees .* GPU; use cpu")],
)
def test_devices_this_machine_lacks_are_named(device, message):
    with pytest.raises(ValueError, match=f"runtime.device is '{device}'.*{message}"):
        resolve_device(device)


def test_a_processor_slow_in_bfloat16_is_told(run_spec, tmp_path, monkeypatch):
    rates = {torch.float32: 2e11, torch.bfloat16: 1e9}
    monkeypatch.setattr(machine, "matmul_flops_per_second", lambda device, dtype, size=None: rates[dtype])
    said = Listener()
    train(run_spec(precision="bfloat16", **{"schedule.num_steps": 6}), tmp_path / "half", [said])
    assert said.messages == [slow_bfloat16(CPU)]
    assert "bfloat16 products run at 1 GFLOP/s on this processor, those of float32 at 200" in said.messages[0]
    rates[torch.bfloat16] = 8e11
    assert slow_bfloat16(CPU) is None
    assert slow_bfloat16(torch.device("cuda")) is None


class Listener:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def started(self, spec, facts, step) -> None: ...
    def rows(self, rows) -> None: ...
    def close(self) -> None: ...


def test_the_rate_of_products_is_that_of_the_machine():
    rate = matmul_flops_per_second(CPU, torch.float32, size=128)
    assert 1e8 < rate < 1e13
