"""Base images: from a kind's recipe to a kernel, an initrd and a root file system in the cache.

mmdebstrap makes a root file system as a tar, ``mke2fs -d`` turns its tree into a disk. Both need
neither a loop device nor a mount. Every image lives in ``images/<kind>-<recipe hash>/`` of the
cache and never changes once it is there: hosts write to overlays.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shlex
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from . import kinds, paths, tools
from .errors import LabError

#: Raise it when this module builds something else from the same recipe.
FORMAT_VERSION = 1

#: An image that no host uses is removed this long after its last use, in seconds, when another
#: one of its kind is built.
KEEP_UNUSED = 7 * 24 * 3600

# Fixed, so that the same packages give the same tar.
_SOURCE_DATE_EPOCH = "1735689600"


@dataclasses.dataclass(frozen=True)
class Image:
    """A built image. ``directory`` holds ``disk.raw``, ``vmlinuz``, ``initrd``, ``packages``."""

    kind: kinds.Kind
    directory: Path

    @property
    def disk(self) -> Path:
        return self.directory / "disk.raw"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd"


def key_path() -> Path:
    """Return the private key that logs in to every host, generated at the first call."""
    key = paths.cache_dir() / "ssh" / "id_ed25519"
    with paths.locked(key.parent / ".lock"):
        if not key.exists():
            (keygen,) = tools.find("ssh-keygen")
            scratch = Path(tempfile.mkdtemp(dir=key.parent))
            try:
                tools.run(
                    [keygen, "-q", "-t", "ed25519", "-N", "", "-C", "bulkhead-lab"]
                    + ["-f", str(scratch / "key")],
                    scratch / "log",
                )
                os.replace(scratch / "key.pub", key.with_suffix(".pub"))
                os.replace(scratch / "key", key)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return key


def ensure(name: str, *, force: bool = False) -> Image:
    """Return the image of a kind, building it first when the cache does not have it.

    Concurrent calls for the same kind wait for each other and share the result.
    """
    kind = kinds.get(name)
    public_key = key_path().with_suffix(".pub").read_text(encoding="utf-8").strip()
    recipe = kinds.recipe_hash(kind, public_key, format_version=FORMAT_VERSION)
    directory = paths.cache_dir() / "images" / f"{name}-{recipe}"
    image = Image(kind, directory)
    with locked(image):
        if force and directory.exists():
            discard(directory)
        if not directory.exists():
            _build(image, public_key)
            prune(directory)
        os.utime(directory)  # when it was last used, for prune
    return image


@contextlib.contextmanager
def locked(image: Image) -> Iterator[None]:
    """Let one process at a time build for a kind; the others wait for it."""
    lock = image.directory.parent / f".{image.kind.name}.lock"
    with paths.locked(lock, f"another build of {image.kind.name}"):
        yield


def _build(image: Image, public_key: str) -> None:
    """Build one image under a temporary name and put it in place in one step."""
    kind = image.kind
    programs = ["mmdebstrap", "mke2fs", "tar"]
    programs += [] if os.geteuid() == 0 else ["fakeroot"]
    tools.find(*programs)
    if kind.selinux and os.geteuid() != 0:
        raise LabError(f"kind {kind.name!r} needs root to build: labels are written to files")
    started = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix=f".build-{kind.name}-", dir=image.directory.parent))
    try:
        tools.say(f"{kind.name}: installing {len(kind.packages)} packages of {kind.suite}")
        _bootstrap(kind, scratch)
        tools.say(f"{kind.name}: making a {kind.disk} disk")
        _assemble(kind, scratch, public_key)
        for leftover in ("rootfs.tar", "early.tar", "late.tar"):
            (scratch / leftover).unlink()
        scratch.chmod(0o755)
        os.replace(scratch, image.directory)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    tools.say(f"{kind.name}: built in {time.monotonic() - started:.0f} s: {image.directory}")


def _bootstrap(kind: kinds.Kind, scratch: Path) -> None:
    """Have mmdebstrap write ``rootfs.tar`` below ``scratch``."""
    packages = paths.cache_dir() / "packages" / kind.suite
    packages.mkdir(parents=True, exist_ok=True)
    early = scratch / "early.tar"
    early.write_bytes(pack(kinds.GUEST_DIR / "early"))
    systemctl, archives = 'chroot "$1" systemctl', '"$1"/var/cache/apt/archives'
    cached = shlex.quote(str(packages))
    (mmdebstrap,) = tools.find("mmdebstrap")
    command: list[str | Path] = [mmdebstrap, "--variant=minbase", "--mode=auto", "--format=tar"]
    command += [f"--aptopt={option}" for option in kind.apt_options]
    command += [f"--dpkgopt={option}" for option in kind.dpkg_options]
    command += [
        f"--include={','.join(kind.packages)}",
        # Downloaded packages go in from the cache and back to it; apt checks their hashes.
        "--skip=download/empty,essential/unlink",
        f"--setup-hook=mkdir -p {archives}",
        f"--setup-hook=sync-in {cached} /var/cache/apt/archives",
        f"--essential-hook=tar-in {shlex.quote(str(early))} /",
        f"--customize-hook={systemctl} enable {shlex.join(kind.enable)}",
        f"--customize-hook={systemctl} mask {shlex.join(kind.mask)}",
        f"--customize-hook=rm -rf {archives}/lock {archives}/partial",
        f"--customize-hook=sync-out /var/cache/apt/archives {cached}",
        kind.suite,
        scratch / "rootfs.tar",
        os.environ.get("BULKHEAD_LAB_MIRROR") or kind.mirror,
    ]
    with paths.locked(packages.parent / f".{kind.suite}.lock"):
        tools.run(command, scratch / "build.log", {"SOURCE_DATE_EPOCH": _SOURCE_DATE_EPOCH})


def _assemble(kind: kinds.Kind, scratch: Path, public_key: str) -> None:
    """Turn ``rootfs.tar`` into ``disk.raw``, ``vmlinuz``, ``initrd`` and ``packages``.

    All in one shell, because an ordinary user needs one fakeroot around everything that sets or
    reads owners.
    """
    late = pack(kinds.GUEST_DIR / "late", {"root/.ssh/authorized_keys": f"{public_key}\n"})
    (scratch / "late.tar").write_bytes(late)
    # The guest's own program: it knows the guest's policy, and need not be installed here.
    label = "chroot root setfiles -m -F /etc/selinux/default/contexts/files/file_contexts /"
    script = f"""
        mkdir root
        tar -x -p --numeric-owner --xattrs --xattrs-include='*' -f rootfs.tar -C root
        tar -x -p --numeric-owner --overwrite -f late.tar -C root
        cp -L root/boot/vmlinuz-* vmlinuz
        cp -L root/boot/initrd.img-* initrd
        chmod 0644 vmlinuz initrd
        dpkg-query --admindir=root/var/lib/dpkg -W > packages
        {label if kind.selinux else ":"}
        mke2fs -q -t ext4 -L root -m 0 -E lazy_itable_init=0 -d root disk.raw {kind.disk}
        rm -rf root
    """
    shell = ["sh", "-euc", f"cd {shlex.quote(str(scratch))}\n{script}"]
    if os.geteuid() != 0:
        shell = [*tools.find("fakeroot"), "--", *shell]
    tools.run(shell, scratch / "build.log")


def pack(tree: Path, extra: dict[str, str] | None = None) -> bytes:
    """Pack a tree of plain files as root's, directories 0755 and files 0644.

    :param extra: more files as path -> text; they and their directories are for root alone.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(tree.rglob("*")):
            member = tarfile.TarInfo(str(path.relative_to(tree)))
            member.mtime = int(_SOURCE_DATE_EPOCH)
            if path.is_dir():
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
            else:
                content = path.read_bytes()
                member.mode, member.size = 0o644, len(content)
                archive.addfile(member, io.BytesIO(content))
        for name, text in (extra or {}).items():
            directory = tarfile.TarInfo(str(Path(name).parent))
            directory.type, directory.mode = tarfile.DIRTYPE, 0o700
            archive.addfile(directory)
            member = tarfile.TarInfo(name)
            member.mode, member.size = 0o600, len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def overlays_dir() -> Path:
    """Return where the disks are: ``<host id>/disk.qcow2``, with links to image and state."""
    path = paths.cache_dir() / "overlays"
    path.mkdir(exist_ok=True)
    return path


def _in_use() -> dict[Path, str]:
    """Return the images that hosts use, each with the id of one such host."""
    return {link.resolve(): link.parent.name for link in overlays_dir().glob("*/image")}


def discard(directory: Path) -> None:
    """Delete an image. Raises LabError when a host uses it, running or not."""
    with paths.locked(overlays_dir() / ".lock"):
        user = _in_use().get(directory.resolve())
        if user is not None:
            raise LabError(f"{directory.name} is in use; run: python3 -m lab down {user}")
        shutil.rmtree(directory)


def prune(current: Path) -> None:
    """Remove images of the same kind that no host uses and that nobody asked for in a week."""
    kind = current.name.rpartition("-")[0]
    with paths.locked(overlays_dir() / ".lock"):
        used = _in_use()
        for directory in current.parent.iterdir():
            stale = time.time() - directory.stat().st_mtime > KEEP_UNUSED
            same_kind = directory.name.rpartition("-")[0] == kind
            if same_kind and stale and directory != current and directory.resolve() not in used:
                tools.say(f"removing the unused image {directory.name}")
                shutil.rmtree(directory)
