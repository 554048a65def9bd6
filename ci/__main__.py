"""The project's commands, run with nothing but Python ≥ 3.10 on the machine: `python3 ci <command>`.

Each command sets up what it needs in `.venv` (quick, and offline, when nothing changed), runs it there, and exits with
its status.  Further arguments go on to the program that the command runs.
"""

import argparse
import importlib.util
import sys

if sys.version_info < (3, 10):
    sys.exit(
        f"softgrad needs Python 3.10 or newer; this is {sys.version.split()[0]}. Try: python3.12 ci {sys.argv[-1]}"
    )

import environment

# What runs where: the extras of pyproject.toml that a command needs.
DEMO = ["cpu", "demo"]
DEVELOP = ["dev"]
BENCH = ["bench", "cpu"]
# Those marked `gpu`; named, so that a machine needs no package that only others ask for.
GPU_TESTS = ["tests/test_gpu_rows.py", "tests/test_gpu_promises.py", "tests/test_gpu_peers.py"]
# Exit status of tests.sanitize_gpu where there is no compute-sanitizer.
NOT_FOUND = 2


def main(argv: list[str]) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python3 ci",
        description="softgrad's commands. Each sets up .venv by itself.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"  {name:<9} {command.__doc__}" for name, command in COMMANDS.items()),
    )
    parser.add_argument("command", choices=COMMANDS, metavar="command", help="one of those below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="handed on to the program that the command runs")
    given = parser.parse_args(argv)
    return COMMANDS[given.command](given.arguments)


def demo(arguments: list[str]) -> int:
    """fit a model on real data with fused gradients, next to the full Jacobian; under two minutes"""
    return environment.set_up(DEMO).run(["ci/demo", *arguments])


def test(arguments: list[str]) -> int:
    """run every test (pytest; arguments such as -k NAME or --slow go on to it)"""
    python = environment.set_up(DEVELOP)
    alone = {"-n", "--pdb", "-s", "--collect-only"} & set(arguments)
    return python.run(["-m", "pytest", *([] if alone else ["-n", "auto"]), *arguments])


def lint(arguments: list[str]) -> int:
    """check style, formatting and types (ruff, mypy)"""
    python = environment.set_up(DEVELOP)
    checks = [["ruff", "check", *arguments], ["ruff", "format", "--check"], ["mypy"]]
    return max([python.run(["-m", *check]) for check in checks])


def sanitize(arguments: list[str]) -> int:
    """run every CUDA kernel on the CPU under AddressSanitizer, UBSan and ThreadSanitizer; an hour"""
    return environment.set_up(DEVELOP).run(["-m", "pytest", "--slow", "tests/test_sanitizers.py", *arguments])


def bench(arguments: list[str]) -> int:
    """measure speed and accuracy against the peers (--quick, --report, --compare, --help)"""
    return environment.set_up(BENCH).run(["-m", "bench", *arguments])


def gpu(arguments: list[str]) -> int:
    """run the GPU's tests, compute-sanitizer, benchmarks (--only one; --here: this interpreter, installing nothing)"""
    parser = argparse.ArgumentParser(
        prog="python3 ci gpu", allow_abbrev=False, description="Test and measure on this machine's NVIDIA GPU.",
        epilog="Further arguments go on to the benchmark: see python3 ci bench --help.",
    )  # fmt: skip
    parser.add_argument("--here", action="store_true", help="use this interpreter and its packages; install nothing")
    parser.add_argument("--only", choices=("tests", "sanitizer", "bench"), help="one part alone")
    given, rest = parser.parse_known_args(arguments)
    extras = environment.cuda_extras()
    if extras is None and not given.here:
        print("python3 ci gpu needs an NVIDIA GPU with its driver (nvidia-smi was not found, or lists none).")
        return 2
    if given.here and given.only in (None, "tests") and importlib.util.find_spec("pytest") is None:
        print(f"{sys.executable} lacks pytest, which runs the GPU tests. Try: {sys.executable} -m pip install pytest")
        return 2
    python = environment.running() if given.here else environment.set_up([*DEVELOP, *BENCH, *(extras or [])])
    # Warnings of whatever else is installed are not this project's.
    tests = ["-m", "pytest", "-m", "gpu", "-W", "default", "-ra", *GPU_TESTS]
    if given.only in (None, "tests"):
        status = python.run(tests)
        if status != 0:
            print("The GPU tests failed: benchmarks of wrong results would mean nothing, so none were run.")
            return status
    if given.only in (None, "sanitizer"):
        status = python.run(["-m", "tests.sanitize_gpu"])
        if status == NOT_FOUND and given.only is None:
            print("The kernels were not checked by compute-sanitizer; the tests above passed.")
        elif status != 0:
            return status
    if given.only in (None, "bench"):
        return python.run(["-m", "bench", "--device", "gpu", *rest])
    return 0


COMMANDS = {command.__name__: command for command in (demo, test, lint, sanitize, bench, gpu)}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
