#!/bin/sh
# Compile kube-apiserver and kube-controller-manager from Debian 12's own
# `kubernetes` source package, for the local control plane.
#
#   compile_kubernetes.sh WORK OUT
#
# WORK is scratch space (about 3 GB, removed by the caller); the two binaries are put
# into OUT, each by rename, so that a killed run leaves no half-written program there.
# Needs: apt-get, dpkg-source, go, make, rsync, jq, gcc.  Needs no root: the package
# lists are fetched into WORK, and the machine's own apt configuration is only read.
# Whoever starts it gives it a session of its own and holds its standard input open: when
# that is closed, be it by a SIGKILL, everything started here is killed.
set -eu
exec 3<&0 </dev/null
{ read -r _ <&3 || kill -KILL 0; } >/dev/null 2>&1 &
watcher=$!
trap 'kill "$watcher"' EXIT
exec 3<&-

work=$1 out=$2
mkdir -p "$work/lists/partial" "$work/src" "$out"

. /etc/os-release
# Ask the mirrors that this machine already uses, for the source half of what they serve.
{
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -e "$file" ] && awk -v suite="$VERSION_CODENAME" '
            /^URIs:/   { uris = $2 }
            /^Suites:/ { for (i = 2; i <= NF; i++) if ($i == suite) found = 1 }
            /^[ \t]*$/ { if (found) print uris; found = 0 }
            END        { if (found) print uris }' "$file"
    done
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -e "$file" ] && sed 's/\[[^]]*\]//' "$file" |
            awk -v suite="$VERSION_CODENAME" '$1 == "deb" && $3 == suite { print $2 }'
    done
} | sort -u | while read -r uri; do
    echo "deb $uri $VERSION_CODENAME main"
    echo "deb-src $uri $VERSION_CODENAME main"
done >"$work/sources.list"

apt() {
    apt-get -q -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$work/lists" -o Dir::Cache::pkgcache= \
        -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User= "$@"
}

echo "step 1/4: fetch the source package"
apt update
cd "$work/src"
apt source --download-only kubernetes
dpkg-source --no-check -x kubernetes_*.dsc "$work/kubernetes"

# The vendored reflect2 reads the runtime's maps in a way that Go 1.18 changed: compiled as
# it is, the server dies of SIGSEGV at the first custom resource that has labels.  Debian
# packages the release that fixes it.
apt download golang-github-modern-go-reflect2-dev
dpkg-deb -x golang-github-modern-go-reflect2-dev_*.deb "$work/reflect2"
vendored="$work/kubernetes/vendor/github.com/modern-go/reflect2"
rm "$vendored"/*.go "$vendored"/*.s
cp "$work/reflect2/usr/share/gocode/src/github.com/modern-go/reflect2"/*.[gs]* "$vendored"

cd "$work/kubernetes"
mkdir -p .go/src/k8s.io
ln -sfn "$work/kubernetes" .go/src/k8s.io/kubernetes
export GOPATH="$work/kubernetes/.go" GO111MODULE=off GOFLAGS= CGO_ENABLED=0 \
    GOCACHE="$work/go-cache" HOME="$work" \
    KUBE_GIT_TREE_STATE=archive KUBE_GIT_VERSION=v1.20.2 \
    KUBE_GIT_MAJOR=1 KUBE_GIT_MINOR=20 KUBE_GIT_COMMIT=debian
cd .go/src/k8s.io/kubernetes

echo "step 2/4: generate code"
make generated_files
echo "step 3/4: compile kube-apiserver"
make WHAT=cmd/kube-apiserver
echo "step 4/4: compile kube-controller-manager"
make WHAT=cmd/kube-controller-manager

for program in kube-apiserver kube-controller-manager; do
    built=$(find "$work/kubernetes/_output" -type f -name "$program" -perm -u+x | head -n 1)
    cp "$built" "$out/.$program.new"
    mv "$out/.$program.new" "$out/$program"
done
