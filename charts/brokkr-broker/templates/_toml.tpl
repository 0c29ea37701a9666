{{- /*
Write a table as TOML.  JSON writes strings, numbers, booleans and lists as TOML does, so only
tables are left.  What is null is not set.  Takes `path`, the section's name, and `table`.
*/ -}}
{{- define "brokkr.toml" -}}
{{- $path := .path -}}
{{- range $key, $value := .table }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ include "brokkr.toml.key" $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .table }}
{{- if kindIs "map" $value }}
{{- $section := append $path (include "brokkr.toml.key" $key) }}

[{{ join "." $section }}]
{{- include "brokkr.toml" (dict "path" $section "table" $value) }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "brokkr.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toJson . }}{{ end }}
{{- end -}}
