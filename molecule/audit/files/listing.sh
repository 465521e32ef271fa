#!/bin/sh
# Lists what a look must not touch: contents by size and times, modes and owners; and what Docker has.
set -eu
{
    find /etc /usr /var/lib/docker /var/lib/containerd /root -xdev \
        -not -path '/var/lib/docker/containers/*' -not -path '/root/before' -not -path '/root/after' -not -path '/root/.ansible*' \
        -not -path '/root' -not -path '/var/lib/docker/network/*' -not -path '/var/lib/docker/buildkit*' \
        -not -path '/var/lib/containerd/*/meta.db' -printf '%p %m %u %g %s %T@ %C@\n' | sort
    docker ps --all --no-trunc --format '{{.ID}} {{.Names}} {{.State}}' | sort
    docker images --no-trunc --quiet | sort
    auditctl -l
    iptables-save | grep -v '^#' | sed 's/\[[0-9:]*\]//'
} > "$1"
