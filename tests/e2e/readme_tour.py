"""The README's tour by curl, word for word: starts `entail dev`, runs every `$` line of its console blocks in one shell,
and compares what comes out with what the README says, where `…` stands for anything.

    python3 tests/e2e/readme_tour.py target/release/entail
"""

import pathlib
import re
import signal
import subprocess
import sys
import threading

README = pathlib.Path(__file__).resolve().parent.parent.parent / "README.md"
READY_WITHIN_S = 60


def steps(readme):
    """(command, expected output) of all console blocks of the tour, in order. What the README tells operators needs
    more nodes than `dev` starts; tests/cluster and tests/test_assignment4.py do it."""
    text = re.search(r"^## A tour by curl$(.*?)^## ", readme, re.MULTILINE | re.DOTALL).group(1)
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return [(command, "\n".join(lines)) for command, lines in found]


def run_all(commands):
    """What each command prints, run in one shell so that variables last."""
    mark = "--- end of step ---"
    quiet = [command.replace("curl ", "curl -s ", 1) if command.startswith("curl ") else command for command in commands]
    script = "".join(f"{command}\necho; echo '{mark}'\n" for command in quiet)
    done = subprocess.run(["bash", "-c", script], text=True, capture_output=True, timeout=120)
    return [output.strip() for output in done.stdout.split(mark)[:-1]]


def pattern(expected):
    return re.compile(".*?".join(re.escape(part) for part in expected.split("…")), re.DOTALL)


def wait_until_ready(dev):
    timer = threading.Timer(READY_WITHIN_S, dev.kill)
    timer.start()
    for line in dev.stdout:
        if line.startswith("Ctrl-C stops all nodes"):
            timer.cancel()
            return
    raise SystemExit(f"dev ended before it was ready, with {dev.wait()}")


def main():
    tour = steps(README.read_text(encoding="utf-8"))
    dev = subprocess.Popen([sys.argv[1], "dev"], stdout=subprocess.PIPE, text=True)
    try:
        wait_until_ready(dev)
        outputs = run_all([command for command, _ in tour])
    finally:
        dev.send_signal(signal.SIGTERM)
        dev.wait(timeout=20)
    failed = 0
    for (command, expected), output in zip(tour, outputs, strict=True):
        good = pattern(expected).fullmatch(output) is not None
        failed += not good
        print(("ok    " if good else "WRONG ") + command)
        if not good:
            print(f"  README: {expected}\n  printed: {output}")
    print(f"{len(tour) - failed} passed, {failed} failed")
    return 0 if tour and not failed and dev.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
