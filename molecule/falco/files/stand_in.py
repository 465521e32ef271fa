#!/usr/bin/python3
"""A stand-in of Falco for tests: it watches nothing.

It knows the arguments that docker_falco uses. ``-V FILE``, any number of times, fails for a file that has
no list at its top or says STAND-IN REFUSES, with the reason as the last line. Without arguments it runs
until it is told to end; when a file of rules says STAND-IN DIES it ends two seconds after its start.
"""

import glob
import sys
import time

RULES = ["/etc/falco/falco_rules.yaml", *sorted(glob.glob("/etc/falco/rules.d/*.yaml"))]


def text_of(path):
    """Return what a file holds."""
    with open(path, encoding="utf-8") as stream:
        return stream.read()


def refused(path):
    """Return why a file of rules is refused, or None."""
    lines = text_of(path).splitlines()
    if any("STAND-IN REFUSES" in line for line in lines):
        return "the stand-in refuses it"
    plain = [line for line in lines if line.strip() and not line.startswith("#")]
    return None if plain and plain[0].startswith("- ") else "it is no list"


def main(arguments):
    """Do what the arguments say; return the exit status."""
    if "--version" in arguments:
        print("Falco version: 0.0.0 (a stand-in)")
        return 0
    for flag, path in zip(arguments[::2], arguments[1::2]):
        reason = refused(path) if flag == "-V" else "the stand-in knows no such argument"
        if reason:
            print(f"{path}: Invalid\n{reason}")
            return 1
    if arguments:
        return 0
    time.sleep(2)
    if any("STAND-IN DIES" in text_of(path) for path in RULES):
        return 1
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
