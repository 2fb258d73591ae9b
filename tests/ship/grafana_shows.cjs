// What Grafana's own library makes of panels and the answers to their queries: standard input has a list of
// {panel, frames}, standard output for each the columns of its table, or what its tile says. And the colours of names.
globalThis.navigator = { language: "en-US", languages: ["en-US"] };
const g = require("@grafana/data");
globalThis.window = {}; // after loading: libraries take it for a browser
const { lastValueFrom } = require("rxjs");

const { mergeTransformer, organizeFieldsTransformer } = g.standardTransformers;
const transformers = [mergeTransformer, organizeFieldsTransformer];
g.standardTransformersRegistry.setInit(() => transformers.map((one) => ({ id: one.id, name: one.name, transformation: async () => one })));

// Grafana itself names the properties that an override may set, with the library's functions to take their values.
const standard = { noValue: g.stringOverrideProcessor, unit: g.unitOverrideProcessor, decimals: g.numberOverrideProcessor,
  min: g.numberOverrideProcessor, max: g.numberOverrideProcessor, links: g.dataLinksOverrideProcessor,
  mappings: g.valueMappingsOverrideProcessor, thresholds: g.thresholdsOverrideProcessor, color: g.identityOverrideProcessor };
const item = (id, process, rest) => ({ id, path: id, name: id, process, shouldApply: () => true, settings: {}, ...rest });
const registry = new g.FieldConfigOptionsRegistry(() => [
  ...Object.entries(standard).map(([id, process]) => item(id, process)),
  item("custom.cellOptions", g.identityOverrideProcessor, { path: "cellOptions", isCustom: true }),
]);
const theme = g.createTheme({ colors: { mode: "dark" } });

async function shown({ panel, frames }) {
  const data = frames.map((frame) => g.toDataFrame(frame));
  const transformed = await lastValueFrom(g.transformDataFrame(panel.transformations ?? [], data));
  const options = { fieldConfig: panel.fieldConfig, replaceVariables: (text) => text, theme, fieldConfigRegistry: registry };
  const fields = g.applyFieldOverrides({ ...options, data: transformed });
  if (panel.type === "stat") {
    const tiles = g.getFieldDisplayValues({ ...options, reduceOptions: panel.options.reduceOptions, data: fields });
    return tiles.map(({ display }) => ({ title: display.title, text: g.formattedValueToString(display), color: display.color }));
  }
  return fields.flatMap((frame) => frame.fields.map((field) => ({
    title: g.getFieldDisplayName(field, frame),
    texts: Array.from(field.values, (value) => g.formattedValueToString(field.display(value))),
    colors: Array.from(field.values, (value) => field.display(value).color),
  })));
}

async function main() {
  const { panels, names } = JSON.parse(require("fs").readFileSync(0, "utf8"));
  const palette = theme.visualization.palette.map((colour) => theme.visualization.getColorByName(colour));
  const colours = Object.fromEntries(names.map((name) => [name, g.getColorByStringHash(palette, name)]));
  process.stdout.write(JSON.stringify({ panels: await Promise.all(panels.map(shown)), colours }));
}

main();
