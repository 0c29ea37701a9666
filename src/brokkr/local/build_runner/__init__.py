"""
The local build runner: a stand-in for Shipwright and Tekton on one machine.

It watches Builds and BuildRuns, validates and runs them, and writes the status that
Shipwright's controllers would write, so that everything else is the code that runs in
production.  For each build it leaves a TaskRun as Tekton would, and a Pod whose logs can be
read.  What it is not: it runs no containers and no strategy's steps, but git, buildah and
skopeo on this machine, and only for strategies that are annotated
``local.brokkr.io/builder: buildah``.  It is for building what you trust: a Dockerfile runs
here with the rights of whoever started the runner.

``docs/reference/local-build-runner.md`` says of each field whether it is done, refused or only
noted in the result.  Not stood in for: ssh keys, PipelineRuns, a TaskRun that somebody else
cancels, and a Pod that somebody deletes: such a build goes on.  Logs can be read, not
followed.  One thing is wider: basic authentication over plain http is accepted for loopback
addresses, where Shipwright insists on https.

As an ordinary user it needs the package ``uidmap`` and ranges in ``/etc/subuid`` and
``/etc/subgid`` (what ``buildah unshare`` needs); as root it needs nothing more.
"""
