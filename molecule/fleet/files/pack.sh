#!/bin/sh
# Packs the files of the checkout that the scenario runs from: pack.sh CHECKOUT ARCHIVE
set -eu
cd "$1"
git ls-files -z > "$2.names"
tar --create --gzip --null --files-from "$2.names" --file "$2"
