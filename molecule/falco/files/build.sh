#!/bin/sh
# Builds in a directory a stand-in of Falco's Debian package: the names and paths of the real one, and a program that
# watches nothing. And a repository of it, signed by a key that is made here, and once more by another. The real ones are
# at https://falco.org/docs/setup/packages.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
rm -rf "$1"
mkdir -p "$1"
cd "$1"

mkdir -p tree/DEBIAN tree/usr/bin tree/etc/falco/config.d tree/etc/falco/rules.d \
    tree/usr/lib/systemd/system tree/usr/share/falco/plugins
cat > tree/DEBIAN/control <<'END'
Package: falco
Version: 0.0.0+standin
Architecture: all
Maintainer: Bulkhead <nobody@example.com>
Depends: python3
Description: stand-in of Falco for tests, which watches nothing
END
install -m 0755 "$here/stand_in.py" tree/usr/bin/falco
: > tree/usr/share/falco/plugins/libcontainer.so
echo '# falco.yaml of a stand-in' > tree/etc/falco/falco.yaml
cat > tree/etc/falco/falco_rules.yaml <<'END'
# Rules of a stand-in.
- rule: Terminal shell in container
  desc: A stand-in.
  condition: evt.type = execve
  output: a stand-in
  priority: NOTICE
END
cat > tree/usr/lib/systemd/system/falco-modern-bpf.service <<'END'
[Unit]
Description=Stand-in of Falco, which watches nothing
Wants=falcoctl-artifact-follow.service

[Service]
ExecStart=/usr/bin/falco
Restart=on-failure
RestartSec=15s
StandardOutput=null

[Install]
WantedBy=multi-user.target
END
cat > tree/usr/lib/systemd/system/falcoctl-artifact-follow.service <<'END'
[Unit]
Description=Stand-in of what fetches rules, which fetches none

[Service]
ExecStart=/usr/bin/sleep infinity
END
dpkg-deb --root-owner-group --build tree falco.deb

index=main/binary-$(dpkg --print-architecture)/Packages
release=repository/dists/stable
mkdir -p "$release/${index%/Packages}"
cp falco.deb repository
# size_of FILE, digest_of FILE
size_of() {
  stat --format %s "$1"
}
digest_of() {
  sha256sum "$1" | cut -d ' ' -f 1
}
{
  dpkg-deb --field falco.deb
  echo "Filename: falco.deb"
  echo "Size: $(size_of falco.deb)"
  echo "SHA256: $(digest_of falco.deb)"
} > "$release/$index"
cat > Release <<END
Suite: stable
Components: main
Architectures: $(dpkg --print-architecture)
Date: $(LC_ALL=C date --utc '+%a, %d %b %Y %H:%M:%S UTC')
SHA256:
 $(digest_of "$release/$index") $(size_of "$release/$index") $index
END

GNUPGHOME=$(mktemp -d)
export GNUPGHOME
trap 'gpgconf --kill all; rm -rf "$GNUPGHOME"' EXIT
for key in pinned other; do
  gpg --batch --quiet --passphrase '' --quick-generate-key "$key@example.com" ed25519 sign never
  gpg --armor --export "$key@example.com" > "$key.asc"
  gpg --with-colons --list-keys "$key@example.com" | awk -F : '$1 == "fpr" { print $10 }' > "$key.fingerprint"
  gpg --batch --quiet --local-user "$key@example.com" --clearsign < Release > "$release/InRelease.$key"
done
tar -cf repository.tar repository
