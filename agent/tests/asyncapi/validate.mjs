// Reads an AsyncAPI document from standard input and says what is wrong with it.
// Exit code 0: valid. 1: not. Reaches no network.
import { readFileSync } from 'node:fs';
import { DiagnosticSeverity, Parser } from '@asyncapi/parser';

const { document, diagnostics } = await new Parser().parse(readFileSync(0, 'utf8'));
const wrong = diagnostics.filter(({ severity }) => severity <= DiagnosticSeverity.Warning);
for (const { code, message, path } of wrong) {
  console.error(`${path.join('.')}: ${message} (${code})`);
}
if (document === undefined || wrong.length > 0) process.exit(1);
console.log(`${document.allOperations().length} operations, ${document.allMessages().length} messages`);
