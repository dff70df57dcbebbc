#!/bin/bash
# The whole story with curl alone, over HTTP: publish, ask in three forms, switch versions, read the log, end the key.
#   MODELYARD_URL=http://127.0.0.1:8080 ADMIN_KEY=mdy_… ./story.sh FOLDER
# FOLDER holds iris-1/ and iris-2/, as train.py writes them. ADMIN_KEY is what the first start of the server printed.
# Needs curl and tar; sed reads the answers. Ends with 1 at the first answer that is not the expected one.
set -euo pipefail

folder=$1
client=story-$(date +%s)

say() { printf '\n\033[1m%s\033[0m\n' "$*" >&2; }

# ask KEY METHOD PATH [curl options]: the body, and an error for any status of 400 and more.
ask() {
  local key=$1 method=$2 path=$3
  shift 3
  curl -sS --fail-with-body --max-time 60 -X "$method" -H "x-api-key: $key" "$@" "$MODELYARD_URL$path"
}

# field NAME: the text or number of that name, from the JSON on standard input.
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }

expect() { [ "$2" = "$3" ] || { echo "expected $1 to be $3, not $2" >&2; exit 1; }; }

publish() {
  tar -C "$folder/iris-$1" -cf - . |
    ask "$ADMIN_KEY" PUT "/v1/models/iris/versions/$1" -H 'content-type: application/x-tar' --data-binary @- >/dev/null
}

say '1. Publish the first version; it gets all traffic'
publish 1
ask "$ADMIN_KEY" GET /v1/endpoints/iris/traffic
until curl -sf -o /dev/null "$MODELYARD_URL/v2/health/ready"; do sleep 0.2; done

say '2. A key for a client: these models, this rate, a day'
issued=$(ask "$ADMIN_KEY" POST /v1/keys -H 'content-type: application/json' \
  -d '{"client": "'"$client"'", "models": ["iris"], "rate": "1000/s", "expires": "1d"}')
key=$(echo "$issued" | field key) id=$(echo "$issued" | field id)
echo "key $id"

say '3. The same row in three forms: named features, the Open Inference Protocol, its binary tensors'
named=$(ask "$key" POST /v1/models/iris/predictions \
  -d '{"items": [{"sepal_length": 6.7, "sepal_width": 3.0, "petal_length": 5.2, "petal_width": 2.3}]}')
echo "$named"
json=$(ask "$key" POST /v2/models/iris/infer \
  -d '{"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [6.7, 3.0, 5.2, 2.3]}], "outputs": [{"name": "label"}]}')
echo "$json"
head='{"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":16}}],"outputs":[{"name":"label"}]}'
row='\x66\x66\xd6\x40\x00\x00\x40\x40\x66\x66\xa6\x40\x33\x33\x13\x40'
binary=$(printf "%s$row" "$head" | ask "$key" POST /v2/models/iris/infer --data-binary @- \
  -H 'content-type: application/octet-stream' -H "inference-header-content-length: ${#head}")
echo "$binary"
expect 'the named class' "$(echo "$named" | field label_name)" virginica
expect 'the class by JSON' "$(echo "$json" | sed 's/.*"data":\[\([0-9]*\)\].*/\1/')" 2
expect 'the class by binary' "$(echo "$binary" | sed 's/.*"data":\[\([0-9]*\)\].*/\1/')" 2

say '4. What is wrong is said, with its place (a bad row is an answer too); nobody comes in without a key'
curl -sS -X POST -H "x-api-key: $key" "$MODELYARD_URL/v1/models/iris/predictions" -d '{"items": [{"sepal_length": "long"}]}'
echo
status=$(curl -sS -o /dev/null -w '%{http_code}' -X POST "$MODELYARD_URL/v1/models/iris/predictions" -d '{}')
expect 'the status without a key' "$status" 401

say '5. A second version, first for a tenth of the traffic, then for all'
publish 2
tenth=$(ask "$ADMIN_KEY" PUT /v1/endpoints/iris/traffic -H 'content-type: application/json' -d '{"weights": {"1": 90, "2": 10}}')
echo "$tenth"
versions=''
for _ in $(seq 40); do
  versions+=$(ask "$key" POST /v1/models/iris/predictions \
    -d '{"items": [{"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}]}' | field version)' '
done
echo "who answered: $versions"
ask "$ADMIN_KEY" PUT /v1/endpoints/iris/traffic -H 'content-type: application/json' -d '{"weights": {"2": 100}}'
echo
for _ in $(seq 10); do
  last=$(ask "$key" POST /v1/models/iris/predictions \
    -d '{"items": [{"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}]}' | field version)
  expect 'the version after the switch' "$last" 2
done

say '6. The log has every answer, once'
count() { ask "$ADMIN_KEY" GET "/v1/predictions/count?client=$client&status=2xx" | field count; }
for _ in $(seq 100); do
  [ "$(count)" -lt 54 ] || break
  sleep 0.1
done
expect 'the number of records' "$(count)" 54
ask "$ADMIN_KEY" GET "/v1/predictions?client=$client&limit=1"
echo

say '7. End the key: refused within a second'
ask "$ADMIN_KEY" DELETE "/v1/keys/$id" >/dev/null
status=$(curl -sS -o /dev/null -w '%{http_code}' -X POST -H "x-api-key: $key" "$MODELYARD_URL/v1/models/iris/predictions" -d '{}')
expect 'the status of an ended key' "$status" 401
say 'The story holds.'
