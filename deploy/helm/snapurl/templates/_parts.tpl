{{/* Parts of several manifests. */}}

{{- define "snapurl.fullname" -}}
{{- if contains "snapurl" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-snapurl" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Arguments of this and the next: (list $ "api") */}}
{{- define "snapurl.selector" -}}
app.kubernetes.io/name: snapurl
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "snapurl.labels" -}}
{{ include "snapurl.selector" . }}
{{- with index . 0 }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
{{- end }}

{{- define "snapurl.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "snapurl.clusterName" -}}
{{ include "snapurl.fullname" (index . 0) }}-{{ index . 1 }}
{{- end }}

{{/* SNAPURL_SHARDS: no user, which is PGUSER, and no password, which is in a file. */}}
{{- define "snapurl.shards" -}}
{{- $root := . }}
{{- $shards := list }}
{{- range .Values.shards }}
{{- if and .dsn .cloudNativePG }}{{ fail (printf "shard %s: give it a dsn or cloudNativePG, not both" .name) }}{{ end }}
{{- if not (or .dsn .cloudNativePG) }}{{ fail (printf "shard %s: give it a dsn, or cloudNativePG: true" .name) }}{{ end }}
{{- if and (hasKey . "listed") (not .listed) }}
{{- else if .dsn }}
{{- $shards = append $shards (printf "%s=%s" .name .dsn) }}
{{- else }}
{{- $host := include "snapurl.clusterName" (list $root .name) }}
{{- $shards = append $shards (printf "%s=postgresql://%s-rw:5432/snapurl?sslmode=verify-full&sslrootcert=/run/tls/%s.crt" .name $host .name) }}
{{- end }}
{{- end }}
{{- if not $shards }}{{ fail "shards: list at least one" }}{{ end }}
{{- join " " $shards }}
{{- end }}

{{/* The names of listed shards that the chart runs. Others may have no Secret yet, for which a pod would wait. */}}
{{- define "snapurl.ownShards" -}}
{{- range .Values.shards }}{{ if and .cloudNativePG (or (not (hasKey . "listed")) .listed) }}{{ .name }} {{ end }}{{ end }}
{{- end }}

{{- define "snapurl.redisUrl" -}}
{{ .Values.redis.url | default (printf "redis://%s-redis:6379/0" (include "snapurl.fullname" .)) }}
{{- end }}

{{/* The environment of a program. Arguments: (list $ user) */}}
{{- define "snapurl.env" -}}
{{- $root := index . 0 }}
- {name: PGUSER, value: {{ index . 1 | quote }}}
- {name: SNAPURL_SHARDS, value: {{ include "snapurl.shards" $root | quote }}}
- {name: SNAPURL_MIGRATE_ON_START, value: "false"} # the Job does it, as the owner
{{- range $name, $value := $root.Values.settings }}
- {name: SNAPURL_{{ upper $name }}, value: {{ if kindIs "float64" $value }}{{ if eq (floor $value) $value }}{{ int64 $value | quote }}{{ else }}{{ $value | quote }}{{ end }}{{ else }}{{ $value | quote }}{{ end }}}
{{- end }}
{{- end }}

{{/* What all pods of a program have. Arguments: (list $ component) */}}
{{- define "snapurl.pod" -}}
{{- $root := index . 0 }}
enableServiceLinks: false # they would be variables SNAPURL_…, which the program refuses
automountServiceAccountToken: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with $root.Values.affinity }}
affinity: {{ toJson . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "snapurl.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}

{{- define "snapurl.container" -}}
image: {{ include "snapurl.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{ include "snapurl.confined" . }}
{{- end }}

{{- define "snapurl.confined" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "snapurl.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: secrets, mountPath: /run/secrets, readOnly: true}
{{- if include "snapurl.ownShards" . }}
- {name: tls, mountPath: /run/tls, readOnly: true}
{{- end }}
{{- end }}

{{/* Its volumes: secrets as files named like settings. Arguments: (list $ "service", needs Redis, is the service) */}}
{{- define "snapurl.volumes" -}}
{{- $root := index . 0 }}
{{- $secrets := $root.Values.secrets }}
- {name: tmp, emptyDir: {medium: Memory, sizeLimit: 64Mi}} # metrics that workers share
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret: {name: {{ index $secrets (index . 1) }}, items: [{key: password, path: snapurl_shards_password}]}
      {{- if index . 2 }}
      - secret: {name: {{ $secrets.redis }}, items: [{key: password, path: snapurl_redis_password}]}
      {{- end }}
      {{- if index . 3 }}
      {{- with $secrets.session }}
      - secret: {name: {{ . }}, items: [{key: secret, path: snapurl_session_secret}]}
      {{- end }}
      {{- with $secrets.oidc }}
      - secret: {name: {{ . }}, items: [{key: secret, path: snapurl_oidc_client_secret}]}
      {{- end }}
      {{- end }}
      {{- with $secrets.ca }}
      - secret: {name: {{ . }}, items: [{key: ca.crt, path: ca.crt}]}
      {{- end }}
{{- with include "snapurl.ownShards" $root | trim }}
- name: tls
  projected:
    defaultMode: 0440
    sources:
      {{- range splitList " " . }}
      - secret: {name: {{ include "snapurl.clusterName" (list $root .) }}-ca, items: [{key: ca.crt, path: {{ . }}.crt}]}
      {{- end }}
{{- end }}
{{- end }}
