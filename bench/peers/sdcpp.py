"""sdcpp.py - a sampling step with guidance, or a decode, by a given stable-diffusion.cpp program.

It draws one picture and says how long its parts took; the model is a file with weights (--sd-cpp-model), random ones
serve. Its time for a step is that of all steps divided by their number, less what it says of loading weights on the way;
its memory the most of the whole process.
"""
import os
import re
import resource
import shlex
import subprocess

STEPS = 2
SAMPLING = re.compile(r"sampling completed, taking ([0-9.]+) ?s")
DECODING = re.compile(r"(?:decode_first_stage completed|latent 1 decoded), taking ([0-9.]+) ?s")
LOADING = re.compile(r"loading tensors completed, taking ([0-9.]+) ?s")
PHASE = re.compile(r"(?:get_learned_condition|sampling) completed, taking")
NUMBER = {"sample": (SAMPLING, STEPS), "vae-decode": (DECODING, 1)}


def command(o, size, picture):
    width, height = size.split("x")
    return [str(o.sd_cpp), "-m", str(o.sd_cpp_model), "-p", "a red circle", "-n", "a blue square", "--steps", str(STEPS),
            "--cfg-scale", "7", "-W", width, "-H", height, "-t", str(o.threads), "-s", "1", "-o", str(picture), "-v",
            *shlex.split(o.sd_cpp_args)]


def most_memory():
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def draw(o, bench, size, keep):
    """One picture, in a process whose children's memory is its alone: what it said, and bytes."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        done = subprocess.run([*bench.runner, *command(o, size, keep / "picture.png")], env=bench.env, text=True,
                              capture_output=True)
        with os.fdopen(write, "w") as f:
            f.write(f"{done.returncode} {most_memory()}\n{done.stdout}{done.stderr}")
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as f:
        head, _, said = f.read().partition("\n")
    os.waitpid(child, 0)
    code, memory = (int(x) for x in head.split())
    return code, memory, said


def loading(said, end):
    """Seconds that the part which ends there spent on loading its weights."""
    begin = max((m.end() for m in PHASE.finditer(said, 0, end - 1)), default=0)
    return sum(float(m[1]) for m in LOADING.finditer(said, begin, end))


def measure(o, bench, work, size, keep):
    """As the others measure: an object with seconds, bytes; None if it failed."""
    if not o.sd_cpp_model:
        raise SystemExit("peers.py: --sd-cpp needs --sd-cpp-model, a file with the weights of the same model")
    code, memory, said = draw(o, bench, size, keep)
    pattern, parts = NUMBER[work]
    found = pattern.search(said)
    if code or not found:
        print(f"  stable-diffusion.cpp failed ({code}): " + " | ".join(said.strip().splitlines()[-3:])[:400])
        return None
    return {"engine": "stable-diffusion.cpp", "seconds": (float(found[1]) - loading(said, found.start())) / parts, "rss_bytes": memory,
            "args": o.sd_cpp_args}
