@worker
Feature: Command line, when something is wrong
  Each failure has its exit code, and one sentence that says what is wrong and what to do, for people and for programs alike.

  @VAL-3
  Scenario Outline: A malformed model is refused before a device is opened
    Given a model broken.safetensors that <flaw>
    And the audit trail is shown
    When I call "vram-worker run broken.safetensors --device [device]"
    Then the exit code is 2
    And the error says "broken.safetensors"
    And the error says "<said>"
    And asked for JSON it ends alike, with the same sentence and the code MODEL_LOAD_FAILED
    And the report has no device
    And no device was opened and nothing is left
    When I call "vram-worker digest --layout tensors broken.safetensors"
    Then the exit code is 2
    And standard output is empty
    And the error says "<said>"

    Examples:
      | flaw                              | said                          |
      | is empty                          | 0 bytes long                  |
      | is plain text                     | plain text                    |
      | ends one byte early               | check that the download is complete |
      | claims a header of 2^64 - 1 bytes | claims a header               |
      | has tensors that overlap          | inside the tensor before it   |
      | has a gap between tensors         | gaps                          |
      | has bytes behind its tensors      | 2 bytes follow                |
      | has a tensor beyond 2^64 bytes    | larger than 2^64              |
      | names a tensor twice              | twice                         |

  @SEAL-6 @ERR-2
  Scenario Outline: A model that cannot be read is named, with what to do
    Given a small model tiny.safetensors
    And the audit trail is shown
    When I call "vram-worker run <path> --layout <layout> --device [device]"
    Then the exit code is 2
    And the error says "<said>"
    And asked for JSON it ends alike, with the same sentence and the code MODEL_LOAD_FAILED
    And no device was opened and nothing is left

    Examples:
      | path                    | layout  | said                                 |
      | absent.safetensors      | tensors | there is no such file; check the path |
      | absent.bin              | file    | there is no such file; check the path |
      | .                       | file    | directory                            |
      | tiny.safetensors/inside | tensors | tiny.safetensors/inside              |

  @VAL-2 @DIG-5
  Scenario Outline: An option's bad value is refused, with the good ones
    Given a small model tiny.safetensors
    And the audit trail is shown
    When I call "vram-worker run tiny.safetensors --device [device] <option> <value>"
    Then the exit code is 2
    And the error says "<field>"
    And the error says "<advice>"
    And asked for JSON it ends alike, with the same sentence and the code INVALID_PARAMS
    And no device was opened and nothing is left

    Examples:
      | option       | value      | field                    | advice                                 |
      | --block-size | 512        | block size               | power of two from 1024 to 65536        |
      | --block-size | 3000       | block size               | power of two from 1024 to 65536        |
      | --block-size | 131072     | block size               | power of two from 1024 to 65536        |
      | --expect     | md5:00     | digest                   | character 1                            |
      | --expect     | sha256:00  | ends after character 9   | 64 hexadecimal digits                  |
      | --part-bytes | 0          | part bytes               | a multiple of the block size, 4096     |
      | --part-bytes | 6144       | part bytes of 6144       | a multiple of the block size, 4096     |
      | --executes   | 0          | '--executes <N>'         | give a whole number from 1             |
      | --executes   | many       | '--executes <N>'         | give a whole number from 1             |
      | --headroom   | 1GiB       | '--headroom <BYTES>'     | give a whole number of bytes           |
      | --layout     | flat       | '--layout <LAYOUT>'      | 'flat'                                 |

  @VAL-2
  Scenario Outline: A digest's bad parameter is refused, with the good ones
    Given a small model tiny.safetensors
    When I call "vram-worker digest <option> <value> tiny.safetensors"
    Then the exit code is 2
    And standard output is empty
    And the error says "<said>"
    And nothing is left

    Examples:
      | option       | value | said                                   |
      | --block-size | 3000  | a power of two from 1024 to 65536      |
      | --salt       | c0ffe | give up to 64 hexadecimal digits       |
      | --salt       | 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20 | at most 32 |

  @ERR-2
  Scenario Outline: A call that is not understood runs nothing
    Given the audit trail is shown
    When I call "vram-worker <call>"
    Then the exit code is 2
    And standard output is empty
    And standard error says "<said>"
    And no device was opened and nothing is left

    Examples:
      | call                    | said                          |
      | serve                   | unrecognized subcommand       |
      | run --no-such-option    | unexpected argument           |
      | run --device gpu        | where N is the ordinal        |
      | run one.bin two.bin     | unexpected argument 'two.bin' |
      | digest                  | Usage: vram-worker digest     |
      | digest --expect x file  | unexpected argument           |

  @ERR-2
  Scenario: A device that is not there is named, with what to do
    Given the audit trail is shown
    When I call "vram-worker run --device cuda:4000"
    Then the exit code is 4
    And the error says "CUDA device 4000"
    And asked for JSON it ends alike, with the same sentence and the code DEVICE_UNAVAILABLE
    And the report gives error.category as "device"
    And no device was opened and nothing is left

  @ERR-2 @mock
  Scenario: A worker that has the mock names it where a device is missing
    When I call "vram-worker run --device cuda:4000"
    Then the exit code is 4
    And the error says "to try it without a GPU: --device mock"
    When I call "vram-worker run --device mock"
    Then the exit code is 0
    And nothing is left

  @RES-4 @RES-6
  Scenario: Too little room is told with need and have, and leaves nothing
    Given the audit trail is shown
    When I call "vram-worker run --device [device] --headroom 0 --json"
    Then the exit code is 0
    And nothing is left
    When I call "vram-worker run --device [device] --headroom [all but 1048576 bytes]"
    Then the exit code is 4
    And the error says "the device has no room"
    And the error says "bytes are needed"
    And the error says "lower the headroom"
    And the trail is
      """
      manager_started vram_allocation_failed vram_seal_failed manager_draining manager_stopped
      """
    And asked for JSON it ends alike, with the same sentence and the code VRAM_OOM
    And the report gives error.category as "capacity"
    And the report has no shard
    And nothing is left
    When I call "vram-worker run --device [device] --headroom [all but 0 bytes]"
    Then the exit code is 2
    And the error says "headroom"
    And asked for JSON it ends alike, with the same sentence and the code CONFIG_ERROR

  @RES-6 @SEAL-8
  Scenario: Parts that do not all fit are wiped again
    Given the audit trail is shown
    When I call "vram-worker run --device [device] --json"
    Then the exit code is 0
    When I call "vram-worker run --device [device] --part-bytes 4194304 --headroom [all but 6291456 bytes] --json"
    Then the exit code is 4
    And the report gives error.code as "VRAM_OOM"
    And the report has no shard
    And the report gives executed as "0"
    And nothing is left

  @KEY-1 @KEY-3
  Scenario Outline: A secret that its owner alone may use is taken and never shown
    Given a small model tiny.safetensors
    And a secret of <bytes> bytes in house-key with the permissions <permissions>
    And the audit trail is shown
    When I call "vram-worker run tiny.safetensors --secret-file house-key --device [device] --json"
    Then the exit code is 0
    And the report gives executed as "3"
    And neither the secret nor its place house-key is shown
    And nothing is left

    Examples:
      | bytes | permissions |
      | 32    | 600         |
      | 4096  | 400         |

  @KEY-1 @KEY-3 @ERR-2
  Scenario Outline: A secret that is not kept as one is refused and never shown
    Given a small model tiny.safetensors
    And a secret of <bytes> bytes in house-key with the permissions <permissions>
    And the audit trail is shown
    When I call "vram-worker run tiny.safetensors --secret-file <place> --device [device]"
    Then the exit code is 2
    And the error says "worker secret"
    And the error says "<said>"
    And neither the secret nor its place <place> is shown
    And asked for JSON it ends alike, with the same sentence and the code CONFIG_ERROR
    And neither the secret nor its place <place> is shown
    And no device was opened and nothing is left

    Examples:
      | bytes | permissions | place      | said                        |
      | 32    | 644         | house-key  | chmod 600                   |
      | 32    | 620         | house-key  | chmod 600                   |
      | 31    | 600         | house-key  | 31 bytes long               |
      | 4097  | 600         | house-key  | longer than 4096 bytes      |
      | 32    | 600         | absent-key | cannot be read              |

  @SCR-1 @SCR-3
  Scenario Outline: A reader that goes away is no news, and the weights are wiped all the same
    Given a small model tiny.safetensors
    And the audit trail is shown
    When I call "vram-worker run tiny.safetensors --device [device] --executes <options>" and do not read its output
    Then the exit code is 1
    And no error is told
    And nothing is left

    Examples:
      | options  |
      | 1        |
      | 1 --json |
