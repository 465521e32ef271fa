"""
title: A setuid program gives no rights
topic: privileges
why: A flaw in one setuid program of an image makes any intruder root of the container.
stopped_by: no_new_privs
checks: ["2.15", "4.8", "5.26"]
variables: [docker_daemon_no_new_privileges]
unnoticed: Setuid programs are part of ordinary images.
options: {user: "4242:4242"}
seconds: 60
weakened: {security_opt: [no-new-privileges=false]}
"""

import subprocess

from proof import BREACHED, ERROR, HELD, SETUID_PYTHON, Try


def attack():
    """Run, as an ordinary user, a program that becomes root."""
    what = "become root by a setuid program"
    command = [SETUID_PYTHON, "-I", "-S", "-B", "-c", "import os; print(os.geteuid())"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return [Try(what, ERROR, "it ended with %d: %s" % (done.returncode, done.stderr[-200:]))]
    user = int(done.stdout)
    return [Try(what, BREACHED if user == 0 else HELD, "its effective user is %d" % user)]
