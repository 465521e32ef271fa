#!/bin/sh
# Builds a stand-in of Falco's Debian package: the names and paths of the real one, and a program that watches
# nothing. The real package is at https://falco.org/docs/setup/packages.
set -eu
cd "$1"
rm -rf tree
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
install -m 0755 stand_in.py tree/usr/bin/falco
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
