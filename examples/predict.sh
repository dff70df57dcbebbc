#!/bin/sh
# One prediction with curl: prints the class and its probability.
#   MODELYARD_URL=http://127.0.0.1:8080 MODELYARD_KEY=mdy_… ./predict.sh
set -eu

answer=$(curl -sS --fail-with-body "$MODELYARD_URL/v1/models/iris/predictions" -H "x-api-key: $MODELYARD_KEY" \
  -d '{"items": [{"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}]}') || {
  echo "$answer" >&2
  exit 1
}
label=$(echo "$answer" | sed 's/.*"label_name":"\([^"]*\)".*/\1/')
probability=$(echo "$answer" | sed 's/.*"probabilities":\[\([^,]*\),.*/\1/')
printf '%s %.4f\n' "$label" "$probability"
