// What the scripts of the clients for JavaScript share: as client_script.py.

export const URL = process.argv[2];
export const MODEL = "all-minilm";
export const TEXTS = ["why is the sky blue?", "This is a test", "Leaves are green. ".repeat(12)];
export const DIMENSIONS = 64;

export async function refusal(ask) {
  try {
    await ask();
  } catch (error) {
    const status = error.status ?? error.status_code;
    return { type: error.constructor.name, status, text: error.message };
  }
  throw new Error("nothing was refused");
}

export const show = (answers) => process.stdout.write(JSON.stringify(answers));
