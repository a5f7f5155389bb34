// npm's openai, which asks for base64 unless told otherwise.

import { OpenAI } from "openai";

import { DIMENSIONS, MODEL, TEXTS, URL, refusal, show } from "./client_script.mjs";

const client = new OpenAI({ baseURL: `${URL}/v1`, apiKey: "any" });
const embed = async (input, options) =>
  (await client.embeddings.create({ model: MODEL, input, ...options })).data.map(
    (item) => item.embedding,
  );

show({
  one: (await embed(TEXTS[0], { encoding_format: "float" }))[0],
  batch: await embed(TEXTS, { encoding_format: "float" }),
  short: (await embed(TEXTS[0], { dimensions: DIMENSIONS }))[0],
  base64: await embed(TEXTS),
  error: await refusal(() => client.embeddings.create({ model: "nope", input: TEXTS[0] })),
});
