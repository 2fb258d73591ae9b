// What a classic dashboard may hold, put together from Grafana's published types: those of the dashboard, and for each kind
// of panel those of its options and of its fields, which the dashboard's own type leaves open.
import type * as g from "@grafana/schema";
import type * as heatmap from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as states from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type * as table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

// JSON has the values of enumerations, TypeScript's types their names.
type Json<T> = T extends string
  ? `${T}`
  : T extends number
    ? T | (`${T}` extends `${infer N extends number}` ? N : never)
    : T extends (infer E)[]
      ? Json<E>[]
      : T extends object
        ? { [K in keyof T]: Json<T[K]> }
        : T;

type Property<Field> =
  | { [K in keyof Field & string]-?: { id: `custom.${K}`; value: Json<Field[K]> } }[keyof Field & string]
  | { [K in Exclude<keyof g.FieldConfig, "custom">]-?: { id: K; value: Json<g.FieldConfig[K]> } }[Exclude<keyof g.FieldConfig, "custom">];

interface Fields<Field> {
  defaults: Json<Omit<g.FieldConfig, "custom">> & { custom?: Json<Field> };
  overrides: { matcher: Json<g.MatcherConfig>; properties: Property<Field>[] }[];
}

interface Target extends Json<g.DataQuery> {
  editorMode: "code" | "builder";
  expr: string;
  format: "time_series" | "table" | "heatmap";
  instant: boolean;
  range: boolean;
  legendFormat: string;
}

interface Panel<Kind extends string, Options, Field> extends Omit<Json<g.Panel>, "type" | "options" | "fieldConfig" | "targets"> {
  type: Kind;
  options: Json<Options>;
  fieldConfig: Fields<Field>;
  targets: Target[];
}

interface Mark extends Omit<Json<g.AnnotationQuery>, "target"> {
  // Of the Prometheus data source, which has no published type.
  target: { expr: string; refId: string; interval: string };
  titleFormat: string;
  textFormat: string;
  tagKeys: string;
  useValueForTime: "on";
}

interface Variable extends Json<g.VariableModel> {
  definition?: string;
}

export interface Board extends Omit<Json<g.Dashboard>, "panels" | "annotations" | "templating"> {
  annotations: { list: Mark[] };
  templating: { list: Variable[] };
  panels: (
    | Json<g.RowPanel>
    | Panel<"heatmap", heatmap.Options, heatmap.FieldConfig>
    | Panel<"stat", stat.Options, never>
    | Panel<"state-timeline", states.Options, states.FieldConfig>
    | Panel<"table", table.Options, table.FieldConfig>
    | Panel<"timeseries", timeseries.Options, timeseries.FieldConfig>
  )[];
}
