# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What the action plugins of both doors share.

A door's module runs on the host; its document is stored on the controller's disk when asked, and only
the part that plans need goes on into Ansible's memory. What comes back is the host's word: it is capped
in size, its schema is checked, and it is never a template.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import tempfile
import typing

from ansible.plugins.action import ActionBase

try:  # ansible-core 2.19 and later mark what may be a template instead of what may not
    from ansible.utils.unsafe_proxy import wrap_var as wrap_var
except ImportError:  # pragma: no cover - gone in some later release

    def wrap_var(v: typing.Any) -> typing.Any:
        return v


Json = dict[str, typing.Any]


def inert(value: typing.Any) -> typing.Any:
    """Return what a host said so that Ansible never takes a text in it for a template."""
    return wrap_var(value)


#: Largest answer accepted from a host, in bytes of JSON. A thousand containers take about 4 MiB.
MAX_ANSWER_BYTES = 24 * 1024 * 1024

#: Parts of a container that no plan needs; they stay in the stored document.
_BULKY = ("env_names", "mounts", "log_opts", "devices")


def for_plans(observation: Json) -> Json:
    """Return an observation without the parts of containers that no plan needs."""
    small = dict(observation)
    small["containers"] = (
        [
            {**item, "config": {k: v for k, v in item["config"].items() if k not in _BULKY}}
            for item in observation.get("containers") or []
        ]
        if observation.get("containers") is not None
        else None
    )
    if "containers" not in observation:
        del small["containers"]
    return small


def store(document: Json, path: str) -> str:
    """Write a document as JSON, mode 0600, whole or not at all; return its SHA-256.

    :param path: a file on the controller; its directory is made, mode 0700, when missing.
    """
    target = pathlib.Path(path)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = json.dumps(document, indent=1, sort_keys=True).encode()
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    return hashlib.sha256(data).hexdigest()


def stored(document: Json, path: str | None) -> Json:
    """Store a document if asked; return what the answer says of it: ``path`` and ``digest``, or a failure."""
    if not path:
        return {}
    try:
        return {"digest": store(document, path), "path": path}
    except OSError as exc:
        return {"failed": True, "msg": f"document {path!r}: {exc.strerror}"}


class Door(ActionBase):
    """An action that runs one module and looks after what it answers."""

    module = ""
    #: the part of its answer without which that is not trusted, and what it must be
    answers_with: tuple[str, type] = ("observation", dict)

    def enter(self, task_vars: Json, arguments: Json) -> Json:
        """Run the module on the host and return its checked answer."""
        answer = self._execute_module(
            module_name=self.module, module_args=arguments, task_vars=task_vars
        )
        return self._checked(answer)

    def _checked(self, answer: Json) -> Json:
        size = len(json.dumps(answer, default=str))
        if size > MAX_ANSWER_BYTES:
            return {
                "failed": True,
                "changed": bool(answer.get("changed")),
                "msg": f"the host answered with {size} bytes, more than the {MAX_ANSWER_BYTES} that are "
                "accepted; look at what it runs before trusting it",
            }
        part, kind = self.answers_with
        if not answer.get("failed") and not isinstance(answer.get(part), kind):
            return {
                "failed": True,
                "msg": f"{self.module} answered without {part}; the host's answer is not trusted",
            }
        return answer

    def finish(self, answer: Json, document: str | None) -> Json:
        """Store the whole document if asked, and return what goes on into Ansible's memory."""
        result = {k: v for k, v in answer.items() if k not in ("observation", "plan")}
        # A failure is printed as it is; the look belongs into the document, not onto the screen.
        if answer.get("failed"):
            result.pop("running_containers", None)
        elif isinstance(answer.get("observation"), dict):
            result["observation"] = for_plans(answer["observation"])
        keep = ("observation", "transaction", "earlier", "running_containers", "plan", "diff")
        whole = {k: answer[k] for k in keep if k in answer}
        return typing.cast(Json, inert({**result, **stored(whole, document)}))
