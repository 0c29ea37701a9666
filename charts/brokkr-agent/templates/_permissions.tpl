{{- /* What src/brokkr/agent/kube/permissions.py says; `make charts` makes this. */ -}}
{{- define "brokkr-agent.role" -}}
# The agent's journal: a claim becomes a Work resource, marks are made on it, and it is deleted when its time is over.
- apiGroups: [brokkr.io]
  resources: [works]
  verbs: [get, list, watch, create, patch, delete]
# Phase, attempts and result of a Work.
- apiGroups: [brokkr.io]
  resources: [works/status]
  verbs: [update]
# The Build of an attempt: made, watched, never changed, and deleted with its Work.
- apiGroups: [shipwright.io]
  resources: [builds]
  verbs: [get, list, watch, create, delete]
# The BuildRun of an attempt: cancelled by a patch.
- apiGroups: [shipwright.io]
  resources: [buildruns]
  verbs: [get, list, watch, create, patch, delete]
# Whether the strategy is there that a Build names.
- apiGroups: [shipwright.io]
  resources: [buildstrategies]
  verbs: [get, list]
# What a template brings beside its Build; never changed, so that nobody else's can be.
- apiGroups: ['']
  resources: [configmaps]
  verbs: [get, list, watch, create, delete]
# What becomes of a Work, for `kubectl describe`.
- apiGroups: ['']
  resources: [events]
  verbs: [create]
# Whether the ServiceAccount of the builds is there.
- apiGroups: ['']
  resources: [serviceaccounts]
  verbs: [get]
# How far a build is, and why it failed, where its BuildRun does not tell.
- apiGroups: [tekton.dev]
  resources: [taskruns, pipelineruns]
  verbs: [get, list, watch]
# Whether a build failed or its Pod was taken away: evicted, preempted, deleted, or lost with its node. Without it a lost node looks like a failed step.
- apiGroups: ['']
  resources: [pods]
  verbs: [get, list, watch]
# The end of the log of the step that failed, for the result of the Work.
- apiGroups: ['']
  resources: [pods/log]
  verbs: [get]
# Whether the namespace is there when the agent starts.
- apiGroups: ['']
  resources: [namespaces]
  resourceNames: ['{{ .Values.work.namespace }}']
  verbs: [get]
{{- end -}}

{{- define "brokkr-agent.clusterRole" -}}
# Whether the strategy is there that a Build names; these have no namespace.
- apiGroups: [shipwright.io]
  resources: [clusterbuildstrategies]
  verbs: [get, list]
# Which of the kinds that it needs the cluster has, and in which versions.
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: [works.brokkr.io, builds.shipwright.io, buildruns.shipwright.io, buildstrategies.shipwright.io, clusterbuildstrategies.shipwright.io, taskruns.tekton.dev, pipelineruns.tekton.dev]
  verbs: [get]
{{- end -}}
