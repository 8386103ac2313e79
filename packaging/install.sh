#!/bin/sh
# Sets up a timeball server on this host in one command, as root: package, certificate, configuration,
# firewall, service. It may be run again: what is done already stays as it is.
set -eu

usage() {
    cat <<'END'
usage: packaging/install.sh --name NAME [OPTIONS]

  --name NAME          name that clients ask for; no certificate is good for another
  --certificate FILE   certificate chain from an authority (with --key); default: a self-signed
                       one for NAME is made in /etc/timeball, and clients need a copy of it
  --key FILE           its key; the group timeball has to be able to read it
  --package FILE       .deb or .rpm to install; default: the one in target/packages, which is built
                       if it is not there
  --notrack            take NTP out of connection tracking until the next boot
  --dry-run            print what would be done, and do nothing
END
}

die() {
    echo "install.sh: $1" >&2
    exit "${2:-1}"
}

dry_run=no
name=
certificate=
key=
package=
notrack=no
while [ $# -gt 0 ]; do
    case $1 in
    --dry-run) dry_run=yes ;;
    --notrack) notrack=yes ;;
    --name | --certificate | --key | --package)
        [ $# -ge 2 ] || die "$1 needs a value" 2
        case $1 in
        --name) name=$2 ;;
        --certificate) certificate=$2 ;;
        --key) key=$2 ;;
        --package) package=$2 ;;
        esac
        shift
        ;;
    --help | -h)
        usage
        exit 0
        ;;
    *) die "there is no option $1; --help shows all" 2 ;;
    esac
    shift
done

here=$(cd "$(dirname "$0")" && pwd)
configuration=/etc/timeball/timeball.toml
[ -n "$name" ] || die "which name do clients ask for? --name NAME; --help shows all" 2
case $name in
-* | *[!A-Za-z0-9.:-]*) die "\"$name\" is no name of a host" 2 ;;
esac
case $package in
"" | *.deb | *.rpm) ;;
*) die "$package is neither .deb nor .rpm" 2 ;;
esac
[ -z "$package" ] || [ -e "$package" ] || die "there is no package $package"
if [ -n "$certificate" ] || [ -n "$key" ]; then
    if [ -z "$certificate" ] || [ -z "$key" ]; then
        die "--certificate and --key go together" 2
    fi
    own_certificate=no
    # The service looks for them from another folder than this one.
    [ -e "$certificate" ] || die "--certificate: there is no $certificate"
    [ -e "$key" ] || die "--key: there is no $key"
    certificate=$(realpath -e "$certificate")
    key=$(realpath -e "$key")
else
    own_certificate=yes
    certificate=/etc/timeball/cert.pem
    key=/etc/timeball/key.pem
fi
[ "$dry_run" = yes ] || [ "$(id -u)" = 0 ] || die "only root can install a service"

# `run WORDS...`: shows a command and runs it.
run() {
    echo "+ $*"
    [ "$dry_run" = yes ] || "$@"
}

done_already() {
    echo "= $1"
}

newest_package() {
    find "$here/../target/packages" -name "$pattern" 2>/dev/null | sort -V | tail -n 1
}

# The package: built here if need be.
find_package() {
    if command -v dpkg >/dev/null; then
        format=deb pattern="timeball_*_$(dpkg --print-architecture).deb"
    elif command -v rpm >/dev/null; then
        format=rpm pattern="timeball-[0-9]*.$(uname -m).rpm"
    else
        die "this system has neither dpkg nor rpm; README.md says how to build timeball by hand"
    fi
    [ -z "$package" ] || return 0
    package=$(newest_package)
    [ -z "$package" ] || return 0
    run "$here/build" "$format"
    package=$(newest_package)
    [ -n "$package" ] || [ "$dry_run" = yes ] || die "packaging/build made no $format package"
    [ -n "$package" ] || package="target/packages/$pattern"
}

install_package() {
    find_package
    case $package in
    *.deb)
        version=$(dpkg-deb -f "$package" Version 2>/dev/null || echo unknown)
        # shellcheck disable=SC2016 # The format is dpkg-query's.
        installed=$(dpkg-query -W -f '${Version} ${Status}' timeball 2>/dev/null || true)
        if [ "$installed" = "$version install ok installed" ]; then
            done_already "timeball $version is installed"
        else
            run dpkg -i "$package"
        fi
        ;;
    *)
        if rpm -q timeball >/dev/null 2>&1; then
            run rpm -U --replacepkgs "$package"
        else
            run rpm -i "$package"
        fi
        ;;
    esac
}

make_certificate() {
    [ "$own_certificate" = yes ] || return 0
    if [ -e "$certificate" ]; then
        done_already "$certificate is there"
    else
        run timeball cert self-signed --name "$name" --name localhost --name 127.0.0.1 --name ::1 \
            --out /etc/timeball
    fi
    run chgrp timeball "$key"
    run chmod 0640 "$key"
}

# The service reads them as its own user; one that it cannot read would stop it.
check_certificate() {
    [ "$own_certificate" = no ] && [ "$dry_run" = no ] || return 0
    for file in "$certificate" "$key"; do
        runuser -u timeball -- test -r "$file" ||
            die "the user timeball cannot read $file: chgrp timeball and chmod g+r it, and its folders g+x"
    done
}

# `set_key NAME VALUE`: takes the comment off a key of the packaged file. What somebody has written
# there stays.
set_key() {
    if [ -e "$configuration" ] && grep -q "^$1 = " "$configuration"; then
        done_already "$configuration has $(grep "^$1 = " "$configuration" | head -n 1)"
    elif [ -e "$configuration" ] && ! grep -q "^#$1 = " "$configuration"; then
        die "$configuration has no line for $1; write it yourself: $1 = \"$2\", in [ke]"
    else
        value=$(printf '%s' "$2" | sed 's/[&|\\]/\\&/g')
        run sed -i "s|^#$1 = .*|$1 = \"$value\"|" "$configuration"
    fi
}

# chronyd tells more than the kernel does.
follow_chronyd() {
    if ! pidof chronyd >/dev/null; then
        echo "= no chronyd runs here: the kernel is asked whether its clock is kept"
    elif [ -e "$configuration" ] && ! grep -q '^source = "kernel"' "$configuration"; then
        done_already "$configuration has $(grep '^source = ' "$configuration" | head -n 1)"
    else
        run sed -i 's|^source = "kernel"|source = "follow"|' "$configuration"
    fi
}

open_firewall() {
    if command -v ufw >/dev/null && ufw status 2>/dev/null | grep -q '^Status: active'; then
        run ufw allow timeball
    elif command -v firewall-cmd >/dev/null && firewall-cmd --state >/dev/null 2>&1; then
        run firewall-cmd --quiet --permanent --add-service=timeball
        run firewall-cmd --quiet --reload
    else
        echo "= neither ufw nor firewalld is active: open UDP port 123 and TCP port 4460 yourself"
    fi
    if [ "$notrack" = yes ]; then
        run nft -f "$here/firewall/timeball-notrack.nft"
    fi
}

start_service() {
    run timeball config check "$configuration"
    run systemctl enable --quiet timeball
    # Also what a run that failed behind its edits has left to do.
    since=$(systemctl show --value --property ActiveEnterTimestamp timeball 2>/dev/null || true)
    if [ -e "$configuration" ] && [ -n "$since" ] &&
        [ "$(stat -c %Y "$configuration")" -le "$(date -d "$since" +%s)" ]; then
        run systemctl start timeball
    else
        run systemctl restart timeball
    fi
}

install_package
make_certificate
check_certificate
set_key certificate "$certificate"
set_key key "$key"
follow_chronyd
start_service
open_firewall

cat <<END

To verify it, here:
  systemctl status timeball
  timeball status --config $configuration
  timeball query $name$([ "$own_certificate" = no ] || echo " --ca $certificate")
and on a client with chrony, in chrony.conf:
  server $name iburst nts
END
if [ "$own_certificate" = yes ]; then
    cat <<END
  ntstrustedcerts /etc/chrony/timeball-cert.pem
where the last is a copy of $certificate. A public server needs a certificate from an authority:
packaging/certificates has what its renewals need.
END
fi
