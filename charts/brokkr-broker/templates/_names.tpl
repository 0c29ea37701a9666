{{- define "brokkr-broker.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* A Deployment's selector can never be changed: nothing here may depend on values. */ -}}
{{- define "brokkr-broker.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "brokkr-broker.labels" -}}
{{ include "brokkr-broker.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: brokkr
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{- end -}}

{{- define "brokkr-broker.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The environment of everything that opens the database. */ -}}
{{- define "brokkr-broker.env" -}}
- name: BROKKR__DATABASE__URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.existingSecret | default (include "brokkr-broker.fullname" .) }}
      key: {{ .Values.database.secretKey }}
{{- if or .Values.adminKey.value .Values.adminKey.existingSecret }}
- name: BROKKR__BROKER__ADMIN_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .Values.adminKey.existingSecret | default (include "brokkr-broker.fullname" .) }}
      key: {{ .Values.adminKey.secretKey }}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "brokkr-broker.mounts" -}}
- name: config
  mountPath: /etc/brokkr
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- with .Values.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "brokkr-broker.config" -}}
{{- include "brokkr.toml" (dict "path" list "table" .Values.config) | trim -}}
{{- end -}}
