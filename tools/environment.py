"""Make the environment that everything here runs in, and print the path of its interpreter.

    python3 tools/environment.py [run|dev]

Runs on any Python 3.8 or newer, standard library only. It picks an interpreter (3.11 or newer) and a place that every
account of the machine can read, because user endpoints run as other accounts; says so when that is not the checkout.
"""

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
LOCKS = {"run": "all.lock", "dev": "dev.lock"}
LOWEST = (3, 11)


def main():
    kind = sys.argv[1] if len(sys.argv) > 1 else "run"
    home = place()
    python = home / "bin" / "python"
    stamp = home / ("made-" + kind)
    wanted = fingerprint(kind)
    if not (stamp.exists() and stamp.read_text() == wanted and python.exists()):
        make(home, python, kind)
        stamp.write_text(wanted)
    if editable():
        # Other accounts cannot write byte code beside the source; without it their first start takes a second more.
        run([str(python), "-m", "compileall", "-q", str(HERE / "src")])
    print(python)


def place():
    """The checkout's .venv where every account can read it; for root elsewhere, a directory of root's own."""
    if os.geteuid() != 0 or closed_directory(HERE) is None:
        return HERE / ".venv"
    mark = hashlib.sha256(str(HERE).encode()).hexdigest()[:12]
    home = Path("/var/cache/muster") / mark
    say(
        "%s cannot be read by other accounts (%s is closed); the environment goes to %s",
        HERE,
        closed_directory(HERE),
        home,
    )
    home.mkdir(parents=True, exist_ok=True, mode=0o755)
    if home.stat().st_uid != 0:
        sys.exit("%s does not belong to root; remove it" % home)
    return home


def closed_directory(path):
    """The first directory on the way to `path` that other accounts may not pass, or None."""
    path = Path(os.path.realpath(str(path)))
    for directory in [*reversed(path.parents), path]:
        if directory.is_dir() and not directory.stat().st_mode & stat.S_IXOTH:
            return directory
    return None


def fingerprint(kind):
    seen = hashlib.sha256()
    for name in ("pyproject.toml", "requirements/" + LOCKS[kind]):
        seen.update((HERE / name).read_bytes())
    if not editable():
        for file in sorted((HERE / "src").rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                seen.update(file.read_bytes())
    return seen.hexdigest()


def editable():
    return closed_directory(HERE) is None or os.geteuid() != 0


def interpreter():
    """A Python that is new enough; for root one that every account can read, if there is one."""
    names = ["python3.13", "python3.12", "python3.11", "python3"]
    paths = [sys.executable, *("/usr/bin/" + n for n in names), *filter(None, map(shutil.which, names))]
    fit = [p for p in dict.fromkeys(paths) if os.path.exists(p) and version(p) >= LOWEST]
    if not fit:
        sys.exit("Python %d.%d or newer is needed and was not found; on Debian: apt-get install python3" % LOWEST)
    if os.geteuid() == 0:
        readable = [p for p in fit if closed_directory(Path(os.path.realpath(p)).parent) is None]
        if readable:
            return readable[0]
        say("every Python found lies in a private directory: user endpoints of other accounts will not start")
    return fit[0]


def version(path):
    code = "import sys; print(*sys.version_info[:2])"
    done = subprocess.run(
        [path, "-I", "-S", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        universal_newlines=True,
        check=False,
    )
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else (0, 0)


def make(home, python, kind):
    if not python.exists() or version(str(python)) < LOWEST or not (home / "bin" / "pip").exists():
        new_venv(home)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "-qq", "install"]
    say("installing what requirements/%s lists (hash-checked) into %s", LOCKS[kind], home)
    run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(HERE / "requirements" / LOCKS[kind])])
    how = ["-e"] if editable() else ["--force-reinstall"]
    run([*pip, "--no-deps", "--no-build-isolation", *how, str(HERE)])


def new_venv(home):
    base = interpreter()
    have = [base, "-I", "-c", "import ensurepip, venv"]
    if subprocess.run(have, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        if os.geteuid() == 0 and shutil.which("apt-get"):
            say("%s lacks the venv module; installing python3-venv", base)
            run(["apt-get", "update", "-qq"])
            run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "python3-venv"])
        else:
            sys.exit("%s lacks the venv module; on Debian: apt-get install python3-venv" % base)
    say("making an environment with %s", base)
    run([base, "-m", "venv", "--clear", str(home)])


def run(command):
    # PYTHONHOME and friends of the caller must not leak in; pip talks on standard error so that stdout stays one path.
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV")}
    clean["PYTHONDONTWRITEBYTECODE"] = ""
    if subprocess.call(command, stdout=2, env=clean) != 0:
        sys.exit("failed: %s" % " ".join(command))


def say(text, *facts):
    print("environment: " + text % facts, file=sys.stderr)


if __name__ == "__main__":
    os.umask(0o022)  # other accounts must be able to read what is installed
    main()
