#!/bin/sh
# Publishes a version, gives it a tenth of the traffic, looks whether it answers well, then gives it all.
#   ./publish_and_switch.sh MODEL FILE_OR_FOLDER NEW_VERSION OLD_VERSION [URL]
# Works on the data folder (MODELYARD_DATA), or with a server (MODELYARD_SERVER, MODELYARD_KEY: an admin's).
# If the new version fails in its trial, everything goes back to the old one and the exit code is 1.
set -eu

model=$1 source=$2 new=$3 old=$4
trial=${MODELYARD_TRIAL_S:-60}

modelyard publish "$model" "$source" --version "$new"
modelyard traffic set "$model" "$old=90" "$new=10"
begun=$(date -u +%Y-%m-%dT%H:%M:%SZ)
echo "version $new gets a tenth for $trial s"
sleep "$trial"

count() { modelyard predictions count --model "$model" --version "$new" --since "$begun" --status "$1"; }
good=$(count 2xx)
bad=$(count 5xx)
if [ "$bad" -gt 0 ] || [ "$good" -eq 0 ]; then
  modelyard traffic set "$model" "$old=100"
  echo "back to $old: version $new answered $good well and $bad badly" >&2
  exit 1
fi
modelyard traffic set "$model" "$new=100"
echo "version $new has all of it: $good answered, none failed"
