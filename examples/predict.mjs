// One prediction from JavaScript (Node 18 or newer, nothing installed): prints the class and its probability.
//   MODELYARD_URL=http://127.0.0.1:8080 MODELYARD_KEY=mdy_… node predict.mjs
const { MODELYARD_URL: url, MODELYARD_KEY: key } = process.env;

const answer = await fetch(`${url}/v1/models/iris/predictions`, {
  method: "POST",
  headers: { "x-api-key": key, "content-type": "application/json" },
  body: JSON.stringify({ items: [{ sepal_length: 5.1, sepal_width: 3.5, petal_length: 1.4, petal_width: 0.2 }] }),
  signal: AbortSignal.timeout(30_000),
});
const said = await answer.json();
if (!answer.ok) {
  console.error(`${answer.status} ${said.code}: ${said.error}`);
  process.exit(1);
}
const { label, label_name: name, probabilities } = said.results[0].output;
console.log(`${name} ${probabilities[label].toFixed(4)}`);
