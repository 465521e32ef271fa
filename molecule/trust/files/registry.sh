#!/bin/bash
# Starts a registry with TLS and a password, and fills it with images that are to be trusted and ones that are not.
set -euo pipefail
registry=registry.test:5000
keys=/root/keys
certificates=/etc/docker/certs.d/$registry

# Not on a loopback address, where the daemon would not ask for a good certificate.
ip address add 192.0.2.10/32 dev lo
echo '192.0.2.10 registry.test' >> /etc/hosts

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=registry.test \
  -addext subjectAltName=DNS:registry.test -keyout /etc/docker/registry/key.pem -out /etc/docker/registry/cert.pem \
  2> /dev/null
chown docker-registry /etc/docker/registry/key.pem
# The user is lab, and so is the password.
cat > /etc/docker/registry/htpasswd <<'PASSWORD'
lab:$2y$05$MGpF1tZlv8E7zCfVDM4A5urNodgVHxk0.3KJaTzDVpjSj6RfhERnK
PASSWORD
sed -i 's|^  addr: :5000|  addr: 192.0.2.10:5000\n  tls: {certificate: /etc/docker/registry/cert.pem, key: /etc/docker/registry/key.pem}|' \
  /etc/docker/registry/config.yml
systemctl restart docker-registry

# For the pushes alone: later it is the role's to place. And for the client's own search for trust data, which does not
# look there.
mkdir -p "$certificates" "/root/.docker/tls/$registry"
cp /etc/docker/registry/cert.pem "$certificates/ca.crt"
cp /etc/docker/registry/cert.pem "/root/.docker/tls/$registry/ca.crt"
until echo lab | docker login --username lab --password-stdin "$registry" 2> /dev/null; do sleep 1; done

mkdir -p "$keys"
cd "$keys"
export COSIGN_PASSWORD=
for key in release former other; do
  cosign generate-key-pair --output-key-prefix "$key" 2> /dev/null
done

# push NAME TEXT [KEY]: an image that differs from others by a label, perhaps signed.
push() {
  local name=$registry/shop/$1 container
  container=$(docker create lab:1)
  docker commit --change "LABEL text=$2" "$container" "$name" > /dev/null
  docker rm "$container" > /dev/null
  docker push --quiet "$name"
  if [ -n "${3:-}" ]; then
    cosign sign --yes --tlog-upload=false --registry-cacert "$certificates/ca.crt" --key "$3.key" "$(digest "$1")" 2> /dev/null
  fi
}

digest() {
  docker image inspect --format '{{index .RepoDigests 0}}' "$registry/shop/$1"
}

push right:1 right release
push former:1 former former
push wrong:1 wrong other
push unsigned:1 unsigned
# Signed, and then somebody else's under the same tag.
push retagged:1 signed release
push retagged:1 evil
# Signed, and then another manifest in its place in the registry's own store.
push swapped:1 signed release
store=/var/lib/docker-registry/docker/registry/v2/blobs/sha256
blob() {
  local hash
  hash=$(digest "$1" | sed 's/.*sha256://')
  echo "$store/${hash:0:2}/$hash/data"
}
cp "$(blob unsigned:1)" "$(blob swapped:1)"
# Unsigned, with the signature of another under its name.
push stolen:signed signed release
push stolen:1 evil
tags=${store%/blobs/sha256}/repositories/shop/stolen/_manifests/tags
signature() {
  digest "$1" | sed 's/.*sha256:\(.*\)/sha256-\1.sig/'
}
cp --recursive --preserve "$tags/$(signature stolen:signed)" "$tags/$(signature stolen:1)"

docker image ls --quiet --filter 'reference=registry.test:5000/shop/*' | sort -u | xargs docker image rm --force > /dev/null
rm -r /etc/docker/certs.d
