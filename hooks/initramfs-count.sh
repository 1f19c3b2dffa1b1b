#!/bin/sh
# Counts boots where GRUB can't, before the root is mounted (after a hibernated
# system had its chance: it would not survive the mount). A generation on trial
# without a try left gives way to the last good one; when that does not come up
# in two boots either, the machine waits for somebody.
# In initramfs-tools: scripts/local-premount/snaptx, on ZFS local-bottom. In dracut: see dracut-module.
[ "${1-}" = prereqs ] && echo btrfs resume && exit 0

value() { # of a variable in the entry file
    while read -r _ word; do
        case $word in "$1="*) word=${word#*=\'} && echo "${word%\'}" && return ;; esac
    done <"$home/snaptx.cfg"
}

snaptx_count() ( # dracut sources this file: it must not exit
    read -r line </proc/cmdline
    case " $line " in
        *" snaptx.trial "*) last=0 ;;
        *" snaptx.fallback "*) last=-2 ;;
        *) exit ;;
    esac
    top=/run/snaptx/count && mkdir -p "$top"
    home=$top/@snaptx/grub
    case $line in
        *root=ZFS=*) pool=${line#*root=ZFS=} home=$top && mount -t zfs "${pool%%[ /]*}/snaptx/grub" "$top" || exit 0 ;;
        *) device=${ROOT:-${root#block:}} waited=0 # neither resolves the root nor waits for it before its hooks run
            until part=$(blkid -l -t "$device" -o device 2>/dev/null || echo "$device") &&
                mount -t btrfs -o subvolid=5,rw "$part" "$top" 2>/dev/null; do
                [ $((waited += 1)) -le 90 ] || exit 0; sleep 1; done ;;
    esac
    nonce=$(value snaptx_nonce) counted=
    escape=$home/escape-$nonce.cfg
    rm -f "$home/sums-$nonce" # this kernel and this initrd are whole
    [ ! -s "$home/tries" ] || read -r counted left <"$home/tries"
    [ "$counted" = "$nonce" ] || left=$(value snaptx_tries)
    if [ "$left" -gt "$last" ]; then
        echo "$nonce $((left - 1))" >"$home/tries.new" && mv "$home/tries.new" "$home/tries"
    elif [ "$last" != 0 ]; then
        echo stopped >/run/snaptx/why
    elif [ -s "$escape" ]; then
        echo "snaptx: the generation on trial did not come up; the last good one is next"
        mv "$escape" "$home/snaptx.cfg" && restart=yes
    fi
    sync && umount "$top" # on ZFS not before it is written: GRUB does not replay the intent log
    [ -z "${restart-}" ] || reboot -f
    [ -s /run/snaptx/why ] || exit 0
    printf 'snaptx: STOPPED: two generations did not come up; the machine itself may be at fault\nsnaptx: press Enter to try again\n'
    read -r _ </dev/console || sleep 2147483647
)
snaptx_count
