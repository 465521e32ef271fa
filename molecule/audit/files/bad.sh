#!/bin/sh
# Containers that break one rule each, and one that keeps all that a container can keep. They need the image lab:1.
set -eu
run() {
    name=$1
    shift
    docker run -d --name "$name" "$@"
}
docker volume create --driver local -o type=none -o o=bind -o device=/etc disguised
docker network create --internal apart

run privileged --privileged lab:1
run host-root -v /:/host lab:1
run host-etc-docker -v /etc/docker:/host lab:1
run host-by-volume -v disguised:/host lab:1
run host-read-only -v /usr/share:/host:ro lab:1
run socket -v /var/run/docker.sock:/var/run/docker.sock lab:1
run socket-by-parent -v /run:/host lab:1
run socket-containerd -v /run/containerd/containerd.sock:/c.sock lab:1
run shared-mount -v /mnt:/mnt:shared lab:1
run net-host --network host lab:1 sh -c 'exec busybox httpd -f -p 8099 -h /tmp'
run net-joined --network container:net-host lab:1
run pid-host --pid host lab:1
run ipc-host --ipc host lab:1
run uts-host --uts host lab:1
run cgroupns-host --cgroupns host lab:1
run cap-sys-admin --cap-add SYS_ADMIN lab:1
run cap-all --cap-add ALL lab:1
run seccomp-off --security-opt seccomp=unconfined lab:1
run apparmor-off --security-opt apparmor=unconfined lab:1
run paths-unmasked --security-opt systempaths=unconfined lab:1
run may-gain --security-opt no-new-privileges=false lab:1
run port-low --publish 81:80 lab:1
run port-loopback --publish 127.0.0.1:1024:80 lab:1
run device --device /dev/kmsg lab:1
run device-rule --device-cgroup-rule 'b 8:* rmw' lab:1
run restart-always --restart always lab:1
run pids-unlimited --pids-limit -1 lab:1
run own-ulimit --ulimit nofile=4096:8192 lab:1
run cpu-by-quota --cpu-quota 50000 --memory 64m lab:1
run user-root --user 0:0 lab:1
run user-app --user 1000 lab:1
run exec-privileged lab:1
docker exec -d --privileged exec-privileged sleep 100000
docker create --name never-started --privileged lab:1
run good --network apart --user 1000:1000 --read-only --cap-drop ALL --security-opt no-new-privileges \
    --memory 64m --memory-swap 64m --cpus 0.5 --pids-limit 50 --restart on-failure:5 \
    --health-cmd true --log-driver json-file lab:1
