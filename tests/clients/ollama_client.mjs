// npm's ollama.

import { Ollama } from "ollama";

import { DIMENSIONS, MODEL, TEXTS, URL, refusal, show } from "./client_script.mjs";

const client = new Ollama({ host: URL });
const embed = async (input, options) =>
  (await client.embed({ model: MODEL, input, ...options })).embeddings;

show({
  one: (await embed(TEXTS[0]))[0],
  batch: await embed(TEXTS),
  short: (await embed(TEXTS[0], { dimensions: DIMENSIONS }))[0],
  error: await refusal(() => client.embed({ model: "nope", input: TEXTS[0] })),
});
