// Writes src/generated.ts from ../../openapi.json: a type of every schema, a method of every operation.
//
//   node generate.mjs            writes it
//   node generate.mjs --check    fails if what is there differs, or if package.json has another version than the document
//
// Deterministic: the order is the document's own.
import { readFileSync, writeFileSync } from 'node:fs';

const here = (path) => new URL(path, import.meta.url);
const document = JSON.parse(readFileSync(here('../../openapi.json'), 'utf8'));
const METHODS = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch'];

const pascal = (name) => name[0].toUpperCase() + name.slice(1);
const camel = (name) => name.toLowerCase().replace(/-(.)/g, (_, letter) => letter.toUpperCase());
const key = (name) => (/^[A-Za-z_$][\w$]*$/.test(name) ? name : JSON.stringify(name));
const quote = (text) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;

function comment(lines, indent = '') {
  const text = lines.filter(Boolean).join('\n\n').replaceAll('*/', '* /').trim();
  if (text === '') return '';
  if (!text.includes('\n')) return `${indent}/** ${text} */\n`;
  const body = text.split('\n').map((line) => `${indent} * ${line}`.trimEnd());
  return `${indent}/**\n${body.join('\n')}\n${indent} */\n`;
}

/** Members of a union, each once. */
const union = (types) => [...new Set(types)].join(' | ');

/** A newer server may know more values than this document. */
function literals(values) {
  const opens = { string: '(string & {})', number: '(number & {})' };
  const rest = [...new Set(values.map((value) => opens[typeof value] ?? typeof value))];
  return union([...values.map((value) => (typeof value === 'string' ? quote(value) : String(value))), ...rest]);
}

function typeOf(schema, indent = '') {
  if (schema.$ref !== undefined) return schema.$ref.split('/').at(-1);
  if (schema.enum !== undefined) return literals(schema.enum);
  if (Array.isArray(schema.type)) return union(schema.type.map((type) => typeOf({ ...schema, type }, indent)));
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices !== undefined && schema.properties === undefined)
    return union(choices.map((choice) => typeOf(choice, indent)));
  switch (schema.type) {
    case 'string':
      return schema.format === 'binary' ? 'Bytes' : 'string';
    case 'integer':
    case 'number':
      return 'number';
    case 'boolean':
    case 'null':
      return schema.type;
    case 'array':
      return `Array<${typeOf(schema.items, indent)}>`;
    case 'object':
      return objectOf(schema, indent);
    default:
      throw new Error(`no type for ${JSON.stringify(schema).slice(0, 200)}`);
  }
}

function objectOf(schema, indent) {
  if (schema.properties !== undefined) return `{\n${members(schema, `${indent}  `)}${indent}}`;
  const values = schema.additionalProperties;
  return values ? `{ [key: string]: ${typeOf(values, indent)} }` : 'JsonObject';
}

function members(schema, indent) {
  const required = new Set(schema.required ?? []);
  return Object.entries(schema.properties)
    .map(
      ([name, property]) => comment([describe(property)], indent) + member(name, property, required.has(name), indent),
    )
    .join('');
}

function member(name, schema, required, indent) {
  const type = typeOf(schema, indent);
  return `${indent}${key(name)}${required ? '' : '?'}: ${required ? type : `${type} | undefined`};\n`;
}

/** Descriptions beside `$ref` in a choice with null are the property's. */
const describe = (schema) => schema.description ?? schema.oneOf?.find((choice) => choice.description)?.description;

function declaration(name, schema) {
  const head = comment([schema.description]);
  if (schema.type === 'object' && schema.properties !== undefined) {
    return `${head}export interface ${name} {\n${members(schema, '  ')}}\n`;
  }
  return `${head}export type ${name} = ${typeOf(schema)};\n`;
}

function operations() {
  const found = [];
  for (const [path, item] of Object.entries(document.paths)) {
    for (const method of METHODS) {
      if (item[method] !== undefined) found.push(operation(method, path, item[method]));
    }
  }
  return found;
}

function operation(method, path, spec) {
  const parameters = (spec.parameters ?? []).map((parameter) => ({ ...parameter, as: camelParameter(parameter) }));
  const names = [...parameters.map((parameter) => parameter.as), 'body', 'contentType'];
  if (new Set(names).size !== names.length) throw new Error(`${spec.operationId}: two parameters of one name`);
  return {
    method: method.toUpperCase(),
    path,
    spec,
    id: spec.operationId,
    parameters,
    body: bodyOf(spec),
    answer: answerOf(spec),
  };
}

/** A body that may be null is one that may be left out. */
const withoutNull = (schema) =>
  schema.oneOf ? { ...schema, oneOf: schema.oneOf.filter(({ type }) => type !== 'null') } : schema;

const camelParameter = ({ in: where, name }) => (where === 'header' ? camel(name) : name);

/** Forms are sent as `FormData`, which has no fields to check. */
function bodyOf(spec) {
  if (spec.requestBody === undefined) return undefined;
  const contents = Object.entries(spec.requestBody.content);
  const type = ([media, { schema }]) =>
    media === 'multipart/form-data' ? 'FormData' : typeOf(withoutNull(schema), '  ');
  return {
    types: union(contents.map(type)),
    medias: contents.map(([media]) => media),
    required: spec.requestBody.required === true,
  };
}

function answerOf(spec) {
  const good = Object.entries(spec.responses).filter(([status]) => status.startsWith('2'));
  const contents = good.flatMap(([, response]) => Object.entries(response.content ?? {}));
  const json = contents.filter(([media]) => media === 'application/json').map(([, { schema }]) => typeOf(schema, '  '));
  const isSometimesEmpty = good.some(([, response]) => response.content === undefined);
  if (json.length > 0)
    return { kind: 'json', media: 'application/json', type: union(isSometimesEmpty ? [...json, 'undefined'] : json) };
  const [media] = contents[0] ?? [];
  if (media?.startsWith('text/')) return { kind: 'text', media, type: 'string' };
  if (media !== undefined) return { kind: 'response', media, type: 'Response' };
  const hasHeaders = good.some(([, response]) => response.headers !== undefined);
  return hasHeaders ? { kind: 'headers', media: '*/*', type: 'Headers' } : { kind: 'none', media: '*/*', type: 'void' };
}

function inputOf({ id, parameters, body }) {
  const lines = parameters.map((parameter) => {
    return (
      comment([parameter.description], '  ') + member(parameter.as, parameter.schema, parameter.required === true, '  ')
    );
  });
  if (body !== undefined) {
    lines.push(`  body${body.required ? '' : '?'}: ${body.required ? body.types : `${body.types} | undefined`};\n`);
    if (body.medias.length > 1)
      lines.push(
        `${comment(['Of a body of text or bytes; JSON and forms say it themselves.'], '  ')}  contentType?: ${literals(body.medias)} | undefined;\n`,
      );
  }
  return lines.length === 0 ? undefined : `export interface ${pascal(id)}Input {\n${lines.join('')}}\n`;
}

function wireOf({ id, method, path, parameters, body, answer }) {
  const list = parameters.map(({ as, in: where, name }) => `[${quote(as)}, ${quote(where)}, ${quote(name)}]`);
  const keyed = parameters.some(({ name }) => name === 'Idempotency-Key');
  const medias = body === undefined ? '[]' : `[${body.medias.map(quote).join(', ')}]`;
  return `  ${id}: { method: ${quote(method)}, path: ${quote(path)}, parameters: [${list.join(', ')}], sends: ${medias}, accept: ${quote(answer.media)}, answer: ${quote(answer.kind)}, keyed: ${keyed} },\n`;
}

function methodOf(found) {
  const { id, method, path, spec, parameters, body, answer } = found;
  const scopes = (spec.security ?? []).flatMap((entry) => Object.values(entry).flat());
  const notes = [
    spec.summary,
    spec.description,
    `\`${method} ${path}\`${scopes.length > 0 ? `; scope ${scopes.map((scope) => `\`${scope}\``).join(', ')}` : ''}`,
    spec['x-problem-codes'] &&
      `Problems of its own: ${spec['x-problem-codes'].map((code) => `\`${code}\``).join(', ')}`,
  ];
  const needed = parameters.some((parameter) => parameter.required) || body?.required;
  const takes = inputOf(found) === undefined ? '' : `input: ${pascal(id)}Input${needed ? '' : ' = {}'}, `;
  const input = takes === '' ? '{}' : 'input';
  return `${comment(notes, '  ')}  ${id}(${takes}options: CallOptions = {}): Promise<${answer.type}> {\n    return this.caller.call(OPERATIONS.${id}, ${input}, options);\n  }\n`;
}

function render() {
  const found = operations();
  const codes = document['x-problems'].map(({ code }) => code);
  return [
    '// Generated by generate.mjs from openapi/openapi.json: do not edit.\n',
    "import type { Bytes, Caller, CallOptions, JsonObject, Operation } from './wire.js';\n",
    `/** Version of the document. */\nexport const VERSION = ${quote(document.info.version)};\n`,
    `/** Stable names of what may go wrong. */\nexport type ProblemCode =\n  | ${literals(codes).replaceAll(' | ', '\n  | ')};\n`,
    ...Object.entries(document.components.schemas).map(([name, schema]) => declaration(name, schema)),
    ...found.map(inputOf).filter(Boolean),
    `/** Every operation, as it is on the wire. */\nexport const OPERATIONS = {\n${found.map(wireOf).join('')}} as const satisfies Record<string, Operation>;\n`,
    `/** Every operation of the API, by its \`operationId\`. */\nexport class Operations {\n  constructor(private readonly caller: Caller) {}\n\n${found.map(methodOf).join('\n')}}\n`,
  ].join('\n');
}

const target = here('src/generated.ts');
const text = render();
if (process.argv.includes('--check')) {
  const { version } = JSON.parse(readFileSync(here('package.json'), 'utf8'));
  if (version !== document.info.version) {
    console.error(`package.json has version ${version}, the document ${document.info.version}`);
    process.exitCode = 1;
  }
  if (readFileSync(target, 'utf8') !== text) {
    console.error('src/generated.ts is not what openapi.json makes: run node generate.mjs');
    process.exitCode = 1;
  }
} else {
  writeFileSync(target, text);
}
