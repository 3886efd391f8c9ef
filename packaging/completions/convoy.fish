# Completion of convoy for fish.

# The names of the volumes, or of the snapshots, that the daemon answers with; nothing if it doesn't answer. In what
# "convoy list" prints, the former stand behind one tab, the latter behind three.
function __convoy_names
    set -l tabs '\t'
    test $argv[1] = volumes; or set tabs '\t\t\t'
    set -l socket (string match -rg -- '(?:--socket[= ]|-s ?)(\S+)' (commandline -p))
    timeout 2 convoy (string replace -r '^' -- '--socket=' $socket) list 2>/dev/null |
        string match -rg "^$tabs\"([^\"]*)\": \{"
end

# The words of the line that are neither options nor their values: "snapshot create NAME".
function __convoy_command
    set -l valued --socket -s --root --log --log-format --socket-group --drivers --driver-opts --s3-settings --mnt-ns \
        --cmd-timeout --size --fs --mkfs-options --mount-options --backup \
        --s3-endpoint --id --type --iops --mountpoint --name --dest --volume-name --compression --output -o
    set -l words
    set -l skip no
    for word in (commandline -opc)[2..]
        if test $skip = yes
            set skip no
        else if contains -- $word $valued
            set skip yes
        else if test $word = --driver -a "$words[1]" = create
            set skip yes
        else if not string match -q -- '-*' $word
            set -a words $word
        end
    end
    string join -- \n $words
end

# __convoy_is create; __convoy_is snapshot create: whether the line is of this command.
function __convoy_is
    set -l words (__convoy_command)
    test (count $words) -ge (count $argv); and test "$words[1..$(count $argv)]" = "$argv"
end

# Whether there is no word behind the command yet.
function __convoy_lacks_word
    set -l words (__convoy_command)
    test (count $words) -eq (count $argv); and test "$words" = "$argv"
end

complete -c convoy -f
complete -c convoy -s h -l help -d 'Explain the command'
complete -c convoy -s v -l version -d 'Print the version'
complete -c convoy -s s -l socket -rF -d "The daemon's unix socket"
complete -c convoy -s d -l debug -d 'Log in detail'
complete -c convoy -l verbose -d 'Print JSON where a command prints a name'

complete -c convoy -n __convoy_lacks_word -a daemon -d 'Serve volumes'
complete -c convoy -n __convoy_lacks_word -a create -d 'Create a volume'
complete -c convoy -n __convoy_lacks_word -a delete -d 'Delete volumes'
complete -c convoy -n __convoy_lacks_word -a mount -d 'Mount a volume'
complete -c convoy -n __convoy_lacks_word -a umount -d 'Unmount a volume'
complete -c convoy -n __convoy_lacks_word -a restore -d 'Make a volume what it was in a backup'
complete -c convoy -n __convoy_lacks_word -a trim -d 'Give free blocks back to the pool'
complete -c convoy -n __convoy_lacks_word -a list -d 'Show all volumes'
complete -c convoy -n __convoy_lacks_word -a inspect -d 'Show a volume'
complete -c convoy -n __convoy_lacks_word -a info -d 'Show settings and the pool'
complete -c convoy -n __convoy_lacks_word -a pool -d 'Care for the thin pool'
complete -c convoy -n __convoy_lacks_word -a snapshot -d 'Create, delete and show snapshots'
complete -c convoy -n __convoy_lacks_word -a backup -d 'Create, list, show, verify and delete backups'
complete -c convoy -n __convoy_lacks_word -a jobs -d 'Show or cancel what the daemon works on'
complete -c convoy -n '__convoy_lacks_word jobs' -a cancel
complete -c convoy -n '__convoy_lacks_word pool' -a 'grow adopt'
complete -c convoy -n '__convoy_lacks_word snapshot' -a 'create delete inspect'
complete -c convoy -n '__convoy_lacks_word backup' -a 'create list inspect verify delete gc unlock'

complete -c convoy -n '__convoy_is daemon; or __convoy_is pool adopt' -l root -xa '(__fish_complete_directories)' -d 'Catalog and mount points'
complete -c convoy -n '__convoy_is daemon; or __convoy_is pool adopt' -l log -rF -d 'Append the log to this file'
complete -c convoy -n '__convoy_is daemon; or __convoy_is pool adopt' -l log-format -xa 'text json' -d 'Form of the log'
complete -c convoy -n '__convoy_is daemon' -l socket-group -xa '(__fish_complete_groups)' -d 'Who may use the socket too'
complete -c convoy -n '__convoy_is daemon' -l drivers -xa devicemapper -d Driver
complete -c convoy -n '__convoy_is daemon; or __convoy_is pool adopt' -l driver-opts -d 'Option of the pool' \
    -xa 'dm.datadev= dm.metadatadev= dm.thinpoolname= dm.thinpoolblocksize= dm.defaultvolumesize= dm.fs= dm.lowwatermark= dm.whenfull='
complete -c convoy -n '__convoy_is daemon' -l s3-settings -rF -d 'What destinations in S3 need'
complete -c convoy -n '__convoy_is daemon' -l mnt-ns -rF -d 'Mount in this mount namespace'
complete -c convoy -n '__convoy_is daemon' -l cmd-timeout -x -d 'End mkfs after this time'
complete -c convoy -n '__convoy_is daemon' -l ignore-docker-delete -d 'Keep volumes that Docker deletes'
complete -c convoy -n '__convoy_is daemon' -l create-on-docker-mount -d 'Make volumes that Docker mounts'
complete -c convoy -n '__convoy_is daemon' -l ignore-config-file -d Accepted
complete -c convoy -n '__convoy_is daemon' -l force-new-pool -d 'Overwrite what the devices hold'

complete -c convoy -n '__convoy_is create' -l driver -xa devicemapper -d Driver
complete -c convoy -n '__convoy_is create' -l size -x -d 'Size, such as 20G'
complete -c convoy -n '__convoy_is create' -l fs -xa 'ext4 xfs' -d 'File system'
complete -c convoy -n '__convoy_is create' -l mkfs-options -x -d 'More options for mkfs'
complete -c convoy -n '__convoy_is create' -l mount-options -x -d 'What it is mounted with'
complete -c convoy -n '__convoy_is create' -l backup -x -d 'Fill it from this backup'
complete -c convoy -n '__convoy_is create' -l allow-damaged -d 'Though parts of the backup are lost'
complete -c convoy -n '__convoy_is create' -l s3-endpoint -x -d 'Address of an S3 server'
complete -c convoy -n '__convoy_is create' -l id -x -d Ignored
complete -c convoy -n '__convoy_is create' -l type -x -d Ignored
complete -c convoy -n '__convoy_is create' -l iops -x -d Ignored
complete -c convoy -n '__convoy_is create' -l vm -d Ignored
complete -c convoy -n '__convoy_is delete' -s r -l reference -d Ignored
complete -c convoy -n '__convoy_is mount' -l mountpoint -xa '(__fish_complete_directories)' -d 'Directory to mount it at'
complete -c convoy -n '__convoy_is umount' -l force -d 'Also end the uses of containers'
complete -c convoy -n '__convoy_is restore' -l s3-endpoint -x -d 'Address of an S3 server'
complete -c convoy -n '__convoy_is restore' -l into -xa '(__convoy_names volumes)' -d Volume
complete -c convoy -n '__convoy_is list' -l driver -d 'Show only what the driver knows'
complete -c convoy -n '__convoy_is snapshot create' -l name -x -d 'Name of the snapshot'
complete -c convoy -n '__convoy_is backup' -l s3-endpoint -x -d 'Address of an S3 server'
complete -c convoy -n '__convoy_is backup create' -l dest -x -d 'Destination, such as vfs:///mnt/backups/'
complete -c convoy -n '__convoy_is backup create' -l compression -xa 'none zstd' -d 'How chunks are compressed'
complete -c convoy -n '__convoy_is backup list' -s o -l output -xa 'json table' -d 'Form of the list'
complete -c convoy -n '__convoy_is jobs' -s o -l output -xa 'json table' -d 'Form of the list'
complete -c convoy -n '__convoy_is backup verify' -l quick -d 'Read no chunks'
complete -c convoy -n '__convoy_is backup gc' -l dry-run -d 'Only tell what would be freed'
complete -c convoy -n '__convoy_is backup list' -l volume-name -xa '(__convoy_names volumes)' -d 'Of volumes of this name'

complete -c convoy -n '__convoy_is delete' -a '(__convoy_names volumes)' -d Volume
complete -c convoy -n '__convoy_lacks_word mount' -a '(__convoy_names volumes)' -d Volume
complete -c convoy -n '__convoy_lacks_word umount' -a '(__convoy_names volumes)' -d Volume
complete -c convoy -n '__convoy_lacks_word trim' -a '(__convoy_names volumes)' -d Volume
complete -c convoy -n '__convoy_lacks_word inspect' -a '(__convoy_names volumes)' -d Volume
complete -c convoy -n '__convoy_lacks_word snapshot create' -a '(__convoy_names volumes)' -d Volume
complete -c convoy -n '__convoy_is snapshot delete' -a '(__convoy_names snapshots)' -d Snapshot
complete -c convoy -n '__convoy_lacks_word snapshot inspect' -a '(__convoy_names snapshots)' -d Snapshot
complete -c convoy -n '__convoy_lacks_word backup create' -a '(__convoy_names snapshots)' -d Snapshot
