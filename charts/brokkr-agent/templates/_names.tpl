{{- define "brokkr-agent.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* A Deployment's selector can never be changed: nothing here may depend on values. */ -}}
{{- define "brokkr-agent.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "brokkr-agent.labels" -}}
{{ include "brokkr-agent.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: brokkr
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{- end -}}

{{- define "brokkr-agent.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "brokkr-agent.mounts" -}}
- name: config
  mountPath: /etc/brokkr
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- with .Values.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "brokkr-agent.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "brokkr-agent.fullname" .) }}
{{- end -}}

{{- define "brokkr-agent.config" -}}
{{- $work := dict "agent" (dict "work_crd" (dict "namespace" .Values.work.namespace)) -}}
{{- $all := mergeOverwrite (deepCopy .Values.config) $work -}}
{{- include "brokkr.toml" (dict "path" list "table" $all) | trim -}}
{{- end -}}
