// What transformers.js answers from folders: jobs in JSON on standard input, answers in JSON on standard output.
import { readFileSync } from 'node:fs';
import { env, pipeline } from '@huggingface/transformers';

env.allowRemoteModels = false;
env.allowLocalModels = true;

const { root, jobs } = JSON.parse(readFileSync(0, 'utf-8'));
env.localModelPath = root;
const answers = [];
for (const { task, model, dtype, texts, options } of jobs) {
  const ask = await pipeline(task, model, { dtype });
  const found = await ask(texts, options);
  answers.push(typeof found.tolist === 'function' ? found.tolist() : found);
}
process.stdout.write(JSON.stringify(answers));
