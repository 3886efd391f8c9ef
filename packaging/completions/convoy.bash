# Completion of convoy for bash. It needs nothing but bash.

# The names of the volumes, or of the snapshots, that the daemon answers with; nothing if it doesn't answer. In what
# "convoy list" prints, the former stand behind one tab, the latter behind three.
_convoy_names() {
  local tabs=$'\t'
  [[ $1 == volumes ]] || tabs=$'\t\t\t'
  timeout 2 convoy "${socket[@]}" list 2>/dev/null | sed -n "s/^$tabs\"\([^\"]*\)\": {.*/\1/p"
}

_convoy() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
  local command='' group='' socket=() words='' i

  # The command, behind whatever options. "=" is a word of its own here.
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
    --socket | -s | --root | --log | --log-format | --socket-group | --drivers | --driver-opts | --s3-settings | --mnt-ns | --cmd-timeout | --size | --fs | \
      --mkfs-options | --mount-options | --backup | \
      --s3-endpoint | --id | --type | --iops | --mountpoint | --name | --dest | --volume-name | --compression | --output | -o)
      local option=${COMP_WORDS[i]}
      if [[ ${COMP_WORDS[i + 1]} == = ]]; then ((i++)); fi
      ((i++))
      if [[ $option == --socket || $option == -s ]]; then socket=(--socket "${COMP_WORDS[i]}"); fi
      ;;
    --driver) if [[ $command == create ]]; then ((i++)); fi ;;
    -* | =) ;;
    *)
      if [[ -z $command && -z $group && ${COMP_WORDS[i]} == @(pool|snapshot|backup|jobs) ]]; then
        group=${COMP_WORDS[i]}
      elif [[ -z $command ]]; then
        command=${group:+$group }${COMP_WORDS[i]}
      fi
      ;;
    esac
  done
  # "--option=" and the value that is being typed.
  if [[ $current == = ]]; then current=''; fi
  if [[ $previous == = ]]; then previous=${COMP_WORDS[COMP_CWORD - 2]}; fi

  case $previous in
  --socket | -s | --log | --s3-settings | --mnt-ns)
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
    compopt -o filenames 2>/dev/null
    return
    ;;
  --root | --mountpoint)
    mapfile -t COMPREPLY < <(compgen -d -- "$current")
    compopt -o filenames 2>/dev/null
    return
    ;;
  --drivers) words=devicemapper ;;
  --driver) if [[ $command == create ]]; then words=devicemapper; fi ;;
  --driver-opts)
    words='dm.datadev= dm.metadatadev= dm.thinpoolname= dm.thinpoolblocksize= dm.defaultvolumesize= dm.fs= dm.lowwatermark= dm.whenfull='
    compopt -o nospace 2>/dev/null
    ;;
  --fs) words='ext4 xfs' ;;
  --compression) words='none zstd' ;;
  --output | -o) words='json table' ;;
  --log-format) words='text json' ;;
  --socket-group) words=$(compgen -g) ;;
  --volume-name | --into) words=$(_convoy_names volumes) ;;
  --cmd-timeout | --size | --mkfs-options | --mount-options | --backup | --s3-endpoint | --id | --type | --iops | --name | \
    --dest) return ;;
  esac
  if [[ -z $words && $current == -* ]]; then
    words='--help --version --socket --debug --verbose'
    case $command in
    daemon)
      words+=' --root --log --log-format --socket-group --drivers --driver-opts --s3-settings --mnt-ns --cmd-timeout --ignore-docker-delete'
      words+=' --create-on-docker-mount --ignore-config-file --force-new-pool'
      ;;
    'pool adopt') words+=' --root --log --log-format --driver-opts' ;;
    create) words+=' --driver --size --fs --mkfs-options --mount-options --backup --allow-damaged --s3-endpoint --id --type --iops --vm' ;;
    delete) words+=' --reference' ;;
    mount) words+=' --mountpoint' ;;
    restore) words+=' --into --s3-endpoint' ;;
    umount) words+=' --force' ;;
    list) words+=' --driver' ;;
    'snapshot create') words+=' --name' ;;
    'backup create') words+=' --dest --compression --s3-endpoint' ;;
    'backup verify') words+=' --quick --s3-endpoint' ;;
    'backup gc') words+=' --dry-run --s3-endpoint' ;;
    'backup list') words+=' --volume-name --output --s3-endpoint' ;;
    jobs*) words+=' --output' ;;
    backup*) words+=' --s3-endpoint' ;;
    '')
      if [[ $group == backup ]]; then words+=' --s3-endpoint'; fi
      if [[ $group == jobs ]]; then words+=' --output'; fi
      ;;
    esac
  elif [[ -z $words ]]; then
    case ${command:-$group} in
    '') words='daemon create delete mount umount restore trim list inspect info pool snapshot backup jobs' ;;
    pool) words='grow adopt' ;;
    snapshot) words='create delete inspect' ;;
    jobs) words=cancel ;;
    backup) words='create list inspect verify delete gc unlock' ;;
    delete | mount | umount | trim | inspect | 'snapshot create') words=$(_convoy_names volumes) ;;
    'snapshot delete' | 'snapshot inspect' | 'backup create') words=$(_convoy_names snapshots) ;;
    esac
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

complete -F _convoy convoy
