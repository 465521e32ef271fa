#!/bin/sh
# What a container of this host gets, as lines "name: value". Needs the image lab:1; leaves nothing behind.
set -eu
say() { printf '%s: %s\n' "$1" "$2"; }
serve='echo hello > /tmp/x; exec busybox httpd -f -p 80 -h /tmp'
docker run -d --name probe-server lab:1 sh -c "$serve" > /dev/null
docker run -d --name probe-neighbour lab:1 sleep 600 > /dev/null
in_container() { docker exec probe-neighbour "$@"; }

say 'root of a container is host user' "$(in_container cat /proc/self/uid_map | awk '{print $2}')"
install -d -m 0755 /srv/probe
if docker run --rm -v /srv/probe:/host lab:1 touch /host/file 2> /dev/null; then
  say "root of a container writes root's files" yes
else
  say "root of a container writes root's files" no
fi
rm -rf /srv/probe
id=$(docker inspect --format '{{.Id}}' probe-neighbour)
say 'processes at most' "$(cat "/sys/fs/cgroup/system.slice/docker-$id.scope/pids.max")"
say 'open files at most' "$(in_container cat /proc/self/limits | awk '/^Max open files/ {print $4 ", hard " $5}')"
say 'can gain rights by setuid' \
  "$(in_container grep NoNewPrivs /proc/self/status | awk '{print $2 == 1 ? "no" : "yes"}')"
address=$(docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' probe-server)
if in_container wget -T 5 -q -O /dev/null "http://$address/x" 2> /dev/null; then
  say 'reaches its neighbour' yes
else
  say 'reaches its neighbour' no
fi
say 'survives a restart of the daemon' "$(docker info --format '{{.LiveRestoreEnabled}}' | sed 's/true/yes/; s/false/no/')"
say 'logs rotate' "$(docker inspect --format '{{with index .HostConfig.LogConfig.Config "max-size"}}at {{.}}{{else}}no{{end}}' "$id")"
docker rm -f probe-server probe-neighbour > /dev/null
