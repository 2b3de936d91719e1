"""Become one account for good, then exec a command. Started afresh by the monitor, as root or as the manager's owner.

    python3 -I -S become.py TELL LOWEST BARRED KEEP READS PLACE USER COMMAND...

It never returns. What failed is told on descriptor TELL; a lone "+" there, closed by exec itself, means success.
By hand: sudo python3 -I -S become.py 2 1000 "" "" "" "~" harper /usr/bin/id
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import signal
import sys

CAPBSET_READ, CAPBSET_DROP, NO_NEW_PRIVS, CAPABILITY_3, libc = 23, 24, 38, 0x20080522, ctypes.CDLL(None)
libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


def choose(user: str, lowest_uid: int, barred: list[str]) -> pwd.struct_passwd:
    account = pwd.getpwnam(user) if user else pwd.getpwuid(os.getuid())  # "": without root, the caller's own
    if user and account.pw_name != user:  # some directories fold case or add a domain, and answer with somebody else
        raise PermissionError(f"asked for the account {user!r}, the system answered {account.pw_name!r}")
    if account.pw_uid < max(1, lowest_uid) or str(account.pw_uid) in barred or account.pw_uid >= 2**32 - 1:
        raise PermissionError(f"the account {account.pw_name} (uid {account.pw_uid}) belongs to the system")
    return account


def drop_to(account: pwd.struct_passwd) -> None:
    uid, gid = account.pw_uid, account.pw_gid
    if os.getuid() == 0:
        known = [number for number in range(64) if libc.prctl(CAPBSET_READ, number, 0, 0, 0) >= 0]
        if any(libc.prctl(CAPBSET_DROP, number, 0, 0, 0) != 0 for number in known):  # first: only root may shrink it
            raise PermissionError("cannot empty the capability bounding set")
        os.initgroups(account.pw_name, gid)  # groups next: after setresuid we may not
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)  # the saved id too, or the way back stays open
    cleared = libc.capset((ctypes.c_uint32 * 2)(CAPABILITY_3), (ctypes.c_uint32 * 6)())  # inheritable ones outlive ids
    if cleared != 0 or libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise PermissionError("cannot give up capabilities and new privileges")
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3 or libc.setresuid(0, 0, 0) == 0:
        raise PermissionError("the ids did not change for good")


def tidy(keep: list[int], place: str, home: str) -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)  # Python ignores SIGPIPE, and what is ignored stays so over exec
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold credentials
    os.setsid()  # away from the administrator's terminal
    os.umask(0o077)
    for low, high in zip([2, *keep], [*keep, 2**31 - 1], strict=True):  # what an ancestor leaked stays out
        os.closerange(low + 1, high)
    if place == "~" and not os.access(home, os.X_OK):  # as the user: root may be locked out of their home
        raise PermissionError(f"the home directory {home} is missing or closed")
    os.chdir(place.replace("~", home, 1))


if __name__ == "__main__":
    tell, lowest, barred, keep, reads, place, user, *command = sys.argv[1:]
    os.set_inheritable(int(tell), False)  # closes itself on exec
    try:
        account = choose(user, int(lowest), barred.split(","))
        drop_to(account)
        own = {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name, "SHELL": account.pw_shell}
        # Root starts this with nothing of these; without root, what the owner set stays so.
        os.environ.update(own | {"PATH": f"/usr/local/bin:/usr/bin:/bin:{os.path.dirname(command[0])}"} | os.environ)
        tidy(sorted({int(tell), *map(int, filter(None, keep.split(",")))} - {0, 1, 2}), place, os.environ["HOME"])
        for path in filter(None, reads.split(":")):
            if not os.access(path, os.R_OK):  # said here, as the interpreter would only say that it cannot start
                raise PermissionError(f"{account.pw_name} cannot read {path}, and Muster runs from it")
        os.write(int(tell), b"+")
        os.execv(command[0], command)
    except BaseException as why:  # noqa: BLE001 -- whatever it was: this process ends here, and says why
        os.write(int(tell), f"{type(why).__name__}: {why}".encode()[:1000])
        os._exit(1)  # no unwinding, no handlers
