// Checks objects of KEDA's, a JSON array on stdin, by KEDA's schemas. To be run with --eval in the
// folder that holds them.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const kinds = createRequire(`${process.cwd()}/`)("@kubernetes-models/keda/keda.sh/v1alpha1");
for (const { apiVersion, kind, ...rest } of JSON.parse(readFileSync(0, "utf8"))) {
  const name = `${kind}/${rest.metadata.name}`;
  try {
    new kinds[kind](rest).validate();
    console.log(`${name} is valid`);
  } catch (error) {
    console.error(`${name}: ${error.message}`);
    process.exitCode = 1;
  }
}
