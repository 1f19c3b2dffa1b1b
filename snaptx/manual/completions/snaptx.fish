# Completion of snaptx for fish.

# Prints the command the cursor is in: a verb, "sandbox" or "app" and an action, or nothing before the verb.
function __snaptx_path
    set -l path
    set -l skip 0
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
        else if contains -- $word $__snaptx_common_valued; or contains -- "$path $word" $__snaptx_valued
            set skip 1
        else if string match -q -- '-*' $word
            continue
        else if test -z "$path"; or contains -- "$path" sandbox app
            set -a path $word
        end
    end
    echo -- "$path"
end

# Succeeds in the command named by the arguments, without any where the verb has yet to come.
function __snaptx_at
    test (__snaptx_path) = "$argv"
end

# Succeeds where the options are taken that every verb takes.
function __snaptx_takes_common
    not contains -- (__snaptx_path) $__snaptx_bare
end

# Prints the generations with what they are for, or nothing: listing them needs root.
function __snaptx_generations
    set -l words (commandline -opc)
    set -l sysroot /
    type -q $words[1]; or return
    for index in (seq (count $words))
        switch $words[$index]
            case --sysroot
                set sysroot $words[(math $index + 1)]
            case '--sysroot=*'
                set sysroot (string replace -- --sysroot= '' $words[$index])
        end
    end
    $words[1] --sysroot $sysroot list --json 2>/dev/null |
        sed -n -e '/^    "message": /{s/^    "message": "\(.*\)",$/\1/;h;}' \
            -e '/^    "number": /{s/[^0-9]//g;G;s/\n/\t/;p;}'
end

complete -c snaptx -f

# made by tests/completions.py: begin
set -g __snaptx_common_valued --sysroot --config
set -g __snaptx_bare 
set -g __snaptx_valued \
    'init --keep' \
    'apply --sha256' \
    'apply --base' \
    'apply --message' \
    'apply -m' \
    'apply --conflicts' \
    'run --base' \
    'run --message' \
    'run -m' \
    'run --conflicts' \
    'shell --base' \
    'shell --message' \
    'shell -m' \
    'shell --conflicts' \
    'exec --generation' \
    'exec -g' \
    'exec --user' \
    'exec -u' \
    'upgrade --base' \
    'upgrade --message' \
    'upgrade -m' \
    'upgrade --conflicts' \
    'commit --message' \
    'commit -m' \
    'commit --conflicts' \
    'rollback --message' \
    'rollback -m' \
    'confirm --wait' \
    'log --last' \
    'log --generation' \
    'log -g' \
    'prune --keep' \
    'update --policy' \
    'update --source' \
    'update --splay' \
    'publish --key' \
    'publish --name' \
    'publish --message' \
    'publish -m' \
    'publish --days' \
    'live --conflicts' \
    'live --message' \
    'live -m' \
    'restart --message' \
    'restart -m' \
    'app create --message' \
    'app create -m' \
    'app apply --sha256' \
    'app apply --message' \
    'app apply -m' \
    'app switch --conflicts' \
    'app switch --message' \
    'app switch -m' \
    'app rollback --message' \
    'app rollback -m' \
    'app prune --keep' \
    'app log --last' \
    'app log --generation' \
    'app log -g' \
    'hook --manager' \
    'hook --caller' \
    'sandbox create --size' \
    'sandbox create --from' \
    'sandbox create --layout' \
    'sandbox reboot --target' \
    ''
complete -c snaptx -n '__snaptx_takes_common' -s h -l help -d 'show this help message and exit'
complete -c snaptx -n '__snaptx_takes_common' -l sysroot -x -a '(__fish_complete_directories)' -d 'where the system root is mounted (default: /)'
complete -c snaptx -n '__snaptx_takes_common' -l config -r -F -d 'read this configuration file and no other'
complete -c snaptx -n '__snaptx_takes_common' -l json -d 'print the result as JSON'
complete -c snaptx -n '__snaptx_takes_common' -l quiet -s q -d 'show no progress and log only errors'
complete -c snaptx -n '__snaptx_takes_common' -l verbose -s v -d 'log every step and every command that is run'
complete -c snaptx -n '__snaptx_takes_common' -l dry-run -d 'say what would be done and change nothing'
complete -c snaptx -n '__snaptx_takes_common' -l version -d 'show program\'s version number and exit'
complete -c snaptx -n '__snaptx_at' -a init -d 'adopt the root of this system as generation 1'
complete -c snaptx -n '__snaptx_at init' -l no-boot-loader -d 'do not make the machine start by snaptx\'s menu'
complete -c snaptx -n '__snaptx_at init' -l undo -d 'start as before snaptx, and remove what it made'
complete -c snaptx -n '__snaptx_at init' -l convert -d 'move data inside the root into subvolumes of its own'
complete -c snaptx -n '__snaptx_at init' -l keep -x -d 'leave this inside; may be repeated'
complete -c snaptx -n '__snaptx_at init' -l accept-rollback -d 'leave all of it inside: a rollback takes it back'
complete -c snaptx -n '__snaptx_at init' -l unchanged-exit-77 -d 'exit with 77 if there was nothing to do'
complete -c snaptx -n '__snaptx_at' -a status -d 'what runs, what boots next, what is pending'
complete -c snaptx -n '__snaptx_at' -a list -d 'the generations and their marks'
complete -c snaptx -n '__snaptx_at' -a apply -d 'lay an update over a fresh generation'
complete -c snaptx -n '__snaptx_at apply' -l sha256 -x -d 'refuse any other payload'
complete -c snaptx -n '__snaptx_at apply' -l allow-devices -d 'let the payload make device nodes'
complete -c snaptx -n '__snaptx_at apply' -l idle -d 'let every other process go first while it is written'
complete -c snaptx -n '__snaptx_at apply' -l live -d 'put it under the running system at once'
complete -c snaptx -n '__snaptx_at apply' -l base -x -a '(__snaptx_generations)' -d 'start from generation N (default: what is staged, else the default)'
complete -c snaptx -n '__snaptx_at apply' -l message -s m -x -d 'why; shown in list, log and the boot menu'
complete -c snaptx -n '__snaptx_at apply' -l commit -d 'commit at once'
complete -c snaptx -n '__snaptx_at apply' -l conflicts -x -a 'fail new old' -d 'where update and running root changed the same path: fail, or keep the new or the old version'
complete -c snaptx -n '__snaptx_at apply' -l unchanged-exit-77 -d 'exit with 77 if there was nothing to do'
complete -c snaptx -n '__snaptx_at apply' -F
complete -c snaptx -n '__snaptx_at' -a run -d 'run a command in a fresh generation'
complete -c snaptx -n '__snaptx_at run' -l base -x -a '(__snaptx_generations)' -d 'start from generation N (default: what is staged, else the default)'
complete -c snaptx -n '__snaptx_at run' -l message -s m -x -d 'why; shown in list, log and the boot menu'
complete -c snaptx -n '__snaptx_at run' -l commit -d 'commit at once'
complete -c snaptx -n '__snaptx_at run' -l conflicts -x -a 'fail new old' -d 'where update and running root changed the same path: fail, or keep the new or the old version'
complete -c snaptx -n '__snaptx_at run' -l unchanged-exit-77 -d 'exit with 77 if there was nothing to do'
complete -c snaptx -n '__snaptx_at run' -l keep -d 'keep the generation even if the command fails'
complete -c snaptx -n '__snaptx_at run' -a '(__fish_complete_command)'
complete -c snaptx -n '__snaptx_at' -a shell -d 'open a shell in a fresh generation'
complete -c snaptx -n '__snaptx_at shell' -l base -x -a '(__snaptx_generations)' -d 'start from generation N (default: what is staged, else the default)'
complete -c snaptx -n '__snaptx_at shell' -l message -s m -x -d 'why; shown in list, log and the boot menu'
complete -c snaptx -n '__snaptx_at shell' -l commit -d 'commit when the shell ends'
complete -c snaptx -n '__snaptx_at shell' -l conflicts -x -a 'fail new old' -d 'where update and running root changed the same path: fail, or keep the new or the old version'
complete -c snaptx -n '__snaptx_at shell' -l unchanged-exit-77 -d 'exit with 77 if there was nothing to do'
complete -c snaptx -n '__snaptx_at' -a exec -d 'run a command in any generation\'s tree, on the machine as it is today'
complete -c snaptx -n '__snaptx_at exec' -l generation -s g -x -a '(__snaptx_generations)' -d 'the generation whose tree is used'
complete -c snaptx -n '__snaptx_at exec' -l user -s u -x -d 'run it for this user (default: who called sudo, else root)'
complete -c snaptx -n '__snaptx_at exec' -a '(__fish_complete_command)'
complete -c snaptx -n '__snaptx_at' -a upgrade -d 'run the distribution\'s full upgrade in a fresh generation'
complete -c snaptx -n '__snaptx_at upgrade' -l base -x -a '(__snaptx_generations)' -d 'start from generation N (default: what is staged, else the default)'
complete -c snaptx -n '__snaptx_at upgrade' -l message -s m -x -d 'why; shown in list, log and the boot menu'
complete -c snaptx -n '__snaptx_at upgrade' -l commit -d 'commit at once'
complete -c snaptx -n '__snaptx_at upgrade' -l conflicts -x -a 'fail new old' -d 'where update and running root changed the same path: fail, or keep the new or the old version'
complete -c snaptx -n '__snaptx_at upgrade' -l unchanged-exit-77 -d 'exit with 77 if there was nothing to do'
complete -c snaptx -n '__snaptx_at' -a commit -d 'make a staged generation the one that boots next'
complete -c snaptx -n '__snaptx_at commit' -l message -s m -x -d 'why; kept in the audit trail'
complete -c snaptx -n '__snaptx_at commit' -l conflicts -x -a 'fail new old' -d 'where update and running root changed the same path: fail, or keep the new or the old version'
complete -c snaptx -n '__snaptx_at commit' -a '(__snaptx_generations)'
complete -c snaptx -n '__snaptx_at' -a abort -d 'throw a staged generation away'
complete -c snaptx -n '__snaptx_at abort' -a '(__snaptx_generations)'
complete -c snaptx -n '__snaptx_at' -a rollback -d 'go back to an earlier generation'
complete -c snaptx -n '__snaptx_at rollback' -l as-used -d 'take its root as it was last used, not as it was committed'
complete -c snaptx -n '__snaptx_at rollback' -l message -s m -x -d 'why; shown in list, log and the boot menu'
complete -c snaptx -n '__snaptx_at rollback' -a '(__snaptx_generations)'
complete -c snaptx -n '__snaptx_at' -a confirm -d 'judge a generation good or bad'
complete -c snaptx -n '__snaptx_at confirm' -l bad -d 'judge it bad, without checks'
complete -c snaptx -n '__snaptx_at confirm' -l wait -x -d 'wait for another snaptx to end, at most so long'
complete -c snaptx -n '__snaptx_at confirm' -l unchanged-exit-77 -d 'exit with 77 if there was nothing to do'
complete -c snaptx -n '__snaptx_at confirm' -a '(__snaptx_generations)'
complete -c snaptx -n '__snaptx_at' -a diff -d 'what differs between two generations'
complete -c snaptx -n '__snaptx_at diff' -l stat -d 'only how much differs'
complete -c snaptx -n '__snaptx_at diff' -l packages -d 'the packages instead of the files'
complete -c snaptx -n '__snaptx_at diff' -l name-only -d 'only the paths'
complete -c snaptx -n '__snaptx_at diff' -a '(__snaptx_generations)'
complete -c snaptx -n '__snaptx_at' -a log -d 'the audit trail'
complete -c snaptx -n '__snaptx_at log' -l verify -d 'check that no record was altered, removed or moved'
complete -c snaptx -n '__snaptx_at log' -l last -x -d 'only the newest COUNT records'
complete -c snaptx -n '__snaptx_at log' -l generation -s g -x -a '(__snaptx_generations)' -d 'only what concerns this generation'
complete -c snaptx -n '__snaptx_at' -a verify -d 'check a generation against its manifest, and snaptx\'s own state'
complete -c snaptx -n '__snaptx_at verify' -a '(__snaptx_generations)'
complete -c snaptx -n '__snaptx_at' -a repair -d 'complete or discard what an interruption left, mend what is damaged'
complete -c snaptx -n '__snaptx_at repair' -l boot -d 'record what this boot has shown (for snaptx-boot.service)'
complete -c snaptx -n '__snaptx_at repair' -l unchanged-exit-77 -d 'exit with 77 if there was nothing to do'
complete -c snaptx -n '__snaptx_at' -a prune -d 'remove generations nobody needs'
complete -c snaptx -n '__snaptx_at prune' -l keep -x -d 'how many of the newest stay (default: as configured)'
complete -c snaptx -n '__snaptx_at prune' -l unchanged-exit-77 -d 'exit with 77 if there was nothing to do'
complete -c snaptx -n '__snaptx_at prune' -a '(__snaptx_generations)'
complete -c snaptx -n '__snaptx_at' -a pin -d 'protect a generation from prune'
complete -c snaptx -n '__snaptx_at pin' -l unchanged-exit-77 -d 'exit with 77 if there was nothing to do'
complete -c snaptx -n '__snaptx_at pin' -a '(__snaptx_generations)'
complete -c snaptx -n '__snaptx_at' -a unpin -d 'let prune take a generation again'
complete -c snaptx -n '__snaptx_at unpin' -l unchanged-exit-77 -d 'exit with 77 if there was nothing to do'
complete -c snaptx -n '__snaptx_at unpin' -a '(__snaptx_generations)'
complete -c snaptx -n '__snaptx_at' -a update -d 'bring the machine up to date from its sources'
complete -c snaptx -n '__snaptx_at update' -l policy -x -a 'none check download stage commit reboot' -d 'how far to go (default: as configured)'
complete -c snaptx -n '__snaptx_at update' -l check -d 'only look, as --policy check'
complete -c snaptx -n '__snaptx_at update' -l source -x -a '(__fish_complete_directories)' -d 'a directory or URL of overlays, or packages; may be repeated'
complete -c snaptx -n '__snaptx_at update' -l unattended -d 'keep to the interval, the window and what inhibits it'
complete -c snaptx -n '__snaptx_at update' -l splay -x -d 'first wait a random time up to it'
complete -c snaptx -n '__snaptx_at update' -l unchanged-exit-77 -d 'exit with 77 if there was nothing to do'
complete -c snaptx -n '__snaptx_at' -a publish -d 'make and sign the index of a directory of overlays'
complete -c snaptx -n '__snaptx_at publish' -l key -r -F -d 'the private key to sign with (default: say how to sign)'
complete -c snaptx -n '__snaptx_at publish' -l name -x -d 'what machines call it (default: as the directory is called)'
complete -c snaptx -n '__snaptx_at publish' -l message -s m -x -d 'what the new overlays are for'
complete -c snaptx -n '__snaptx_at publish' -l days -x -d 'how long it is true (default: 30)'
complete -c snaptx -n '__snaptx_at publish' -a '(__fish_complete_directories)'
complete -c snaptx -n '__snaptx_at' -a live -d 'put a generation under the running system at once, or take it away'
complete -c snaptx -n '__snaptx_at live' -l off -d 'take away what is live: what booted is seen again'
complete -c snaptx -n '__snaptx_at live' -l etc -d 'its /etc as well, with what was changed in the running one'
complete -c snaptx -n '__snaptx_at live' -l conflicts -x -a 'fail new old' -d 'where update and running root changed the same path: fail, or keep the new or the old version'
complete -c snaptx -n '__snaptx_at live' -l force -d 'also where the C library, systemd or modules are others'
complete -c snaptx -n '__snaptx_at live' -l message -s m -x -d 'why; kept in the audit trail'
complete -c snaptx -n '__snaptx_at live' -l unchanged-exit-77 -d 'exit with 77 if there was nothing to do'
complete -c snaptx -n '__snaptx_at live' -a '(__snaptx_generations)'
complete -c snaptx -n '__snaptx_at' -a restart -d 'let services go on with what was replaced'
complete -c snaptx -n '__snaptx_at restart' -l message -s m -x -d 'why; kept in the audit trail'
complete -c snaptx -n '__snaptx_at restart' -l unchanged-exit-77 -d 'exit with 77 if there was nothing to do'
complete -c snaptx -n '__snaptx_at' -a ps -d 'processes that still use what an update has replaced'
complete -c snaptx -n '__snaptx_at ps' -a '(__snaptx_generations)'
complete -c snaptx -n '__snaptx_at' -a app -d 'application trees, versioned and switched without a restart'
complete -c snaptx -n '__snaptx_at app' -a create -d 'make an empty application tree'
complete -c snaptx -n '__snaptx_at app create' -l message -s m -x -d 'why; kept in the audit trail'
complete -c snaptx -n '__snaptx_at app' -a apply -d 'lay an update over a fresh generation of it'
complete -c snaptx -n '__snaptx_at app apply' -l sha256 -x -d 'refuse any other payload'
complete -c snaptx -n '__snaptx_at app apply' -l allow-devices -d 'let it make device nodes'
complete -c snaptx -n '__snaptx_at app apply' -l message -s m -x -d 'why; kept in the audit trail'
complete -c snaptx -n '__snaptx_at app' -a switch -d 'move over to a staged generation: start, check, hand on, stop the old'
complete -c snaptx -n '__snaptx_at app switch' -l conflicts -x -a 'fail new old' -d 'where update and running root changed the same path: fail, or keep the new or the old version'
complete -c snaptx -n '__snaptx_at app switch' -l message -s m -x -d 'why; kept in the audit trail'
complete -c snaptx -n '__snaptx_at app' -a rollback -d 'move back to an earlier generation'
complete -c snaptx -n '__snaptx_at app rollback' -l message -s m -x -d 'why; kept in the audit trail'
complete -c snaptx -n '__snaptx_at app' -a start -d 'start what it is at, with --all of every application'
complete -c snaptx -n '__snaptx_at app start' -l all -d 'every application that has a command or a unit, or runs'
complete -c snaptx -n '__snaptx_at app' -a stop -d 'end what runs of it, with --all of every application'
complete -c snaptx -n '__snaptx_at app stop' -l all -d 'every application that has a command or a unit, or runs'
complete -c snaptx -n '__snaptx_at app' -a prune -d 'remove generations of it that nobody needs'
complete -c snaptx -n '__snaptx_at app prune' -l keep -x -d 'how many of the newest stay (default: as configured)'
complete -c snaptx -n '__snaptx_at app prune' -l unchanged-exit-77 -d 'exit with 77 if there was nothing to do'
complete -c snaptx -n '__snaptx_at app' -a remove -d 'remove one that does not run, with all its generations'
complete -c snaptx -n '__snaptx_at app' -a list -d 'the applications, or the generations of one'
complete -c snaptx -n '__snaptx_at app' -a log -d 'the audit trail of one'
complete -c snaptx -n '__snaptx_at app log' -l verify -d 'check that no record was altered, removed or moved'
complete -c snaptx -n '__snaptx_at app log' -l last -x -d 'only the newest COUNT records'
complete -c snaptx -n '__snaptx_at app log' -l generation -s g -x -a '(__snaptx_generations)' -d 'only what concerns this generation'
complete -c snaptx -n '__snaptx_at' -a hook -d 'what package managers call before and after their work'
complete -c snaptx -n '__snaptx_at hook' -l manager -x -a 'apt dnf pacman zypper' -d 'the package manager that calls'
complete -c snaptx -n '__snaptx_at hook' -l caller -x -d 'its process (default: the one that started this)'
complete -c snaptx -n '__snaptx_at hook' -a 'before after'
complete -c snaptx -n '__snaptx_at' -a sandbox -d 'a Btrfs image to try snaptx on'
complete -c snaptx -n '__snaptx_at sandbox' -a create -d 'make a Btrfs image and mount its root as if it had booted'
complete -c snaptx -n '__snaptx_at sandbox create' -l size -x -d 'size of the image, sparse (default: 4G)'
complete -c snaptx -n '__snaptx_at sandbox create' -l from -r -F -d 'fill the root with this (default: a skeleton)'
complete -c snaptx -n '__snaptx_at sandbox create' -l layout -x -a 'debian ubuntu fedora opensuse flat' -d 'whose subvolumes to imitate (default: debian)'
complete -c snaptx -n '__snaptx_at sandbox create' -a '(__fish_complete_directories)'
complete -c snaptx -n '__snaptx_at sandbox' -a destroy -d 'unmount and remove a sandbox'
complete -c snaptx -n '__snaptx_at sandbox destroy' -a '(__fish_complete_directories)'
complete -c snaptx -n '__snaptx_at sandbox' -a reboot -d 'mount as root what the entry file names, as a restart does'
complete -c snaptx -n '__snaptx_at sandbox reboot' -l target -x -d 'boot this subvolume, as from GRUB\'s menu'
complete -c snaptx -n '__snaptx_at sandbox reboot' -a '(__fish_complete_directories)'
# made by tests/completions.py: end
