#!/bin/sh
# Makes of the checkout in /root/policy what a fleet would have: a repository with an inventory, the commit signed by
# somebody whose key root's keyring has. The signer's own keyring is in /root/signer.
set -eu
export GNUPGHOME=/root/signer
mkdir -m 0700 "$GNUPGHOME"
gpg --quiet --batch --passphrase '' --quick-generate-key policy@example.org ed25519 sign never
gpg --export policy@example.org | env -u GNUPGHOME gpg --quiet --import

cd /root/policy
git init --quiet --initial-branch main
git config user.name Policy
git config user.email policy@example.org
git config user.signingkey policy@example.org
mkdir -p inventories/mine
cat > inventories/mine/hosts.yml <<'EOF'
docker_hosts:
  hosts:
    omega:
  vars:
    # One look instead of two: this host is slow.
    bulkhead_drift_audit: false
EOF
git add --all
git commit --quiet --gpg-sign --message 'Begin'
