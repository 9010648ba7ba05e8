@worker
Feature: Command line
  Whoever calls vram-worker learns from its exit code, its output and one sentence what became of the weights. Nothing of them is left.

  @SEAL-1 @VER-1 @SCR-1
  Scenario: The sample is sealed, verified before each execute, wiped and released
    Given the audit trail is shown
    When I call "vram-worker run --device [device] --executes 2 --json"
    Then the exit code is 0
    And the report gives shard.id as "sample"
    And the report gives shard.digest as "sha256:2bc65baa0ddb7d5220ba7f45c9185fcf3df1b436b44e1727f4de1e3a7a98ca4d"
    And the report gives executed as "2"
    And the report has no error
    And the trail is
      """
      manager_started vram_allocated vram_sealed
      seal_verified execute_started
      seal_verified execute_finished execute_started
      seal_verified execute_finished
      vram_wiped vram_deallocated manager_draining manager_stopped
      """
    And nothing is left

  @SEAL-9 @DIG-3
  Scenario: The numbers of a model are those of its file
    Given a small model tiny.safetensors
    When I call "vram-worker run tiny.safetensors --device [device] --json"
    Then the exit code is 0
    And the report gives shard.id as "tiny"
    And the report gives shard.digest as "[digest of tiny.safetensors]"
    And the report gives shard.origin as "measured"
    And the report gives shard.bytes as "4112"
    And the report gives executed as "3"
    And the report's tensors are
      | name | dtype | shape | min                  | max                 | mean | nan |
      | b    | F32   | [2,2] | -2.5                 | 4.0                 | 1.0  | 1   |
      | a    | I64   | [2]   | -9223372036854775808 | 9223372036854775807 | -0.5 | 0   |
    And nothing is left

  @SCR-1 @RES-5
  Scenario: A person reads a table
    Given a small model tiny.safetensors
    When I call "vram-worker run tiny.safetensors --device [device] --executes 4"
    Then the exit code is 0
    And the table gives "shard" as "tiny"
    And the table gives "digest" as "[digest of tiny.safetensors]"
    And the table gives "executes done" as "4 of 4"
    And the table gives "VRAM used before" as "0 bytes"
    And the table gives "VRAM used after release" as "0 bytes"
    And standard output says "Every byte was verified before and after each of 4 executes."
    And standard output says "The shard was wiped and released: 0 bytes in use, as before."
    And nothing is left

  @RES-5 @mock
  Scenario: On the mock it is said that nothing is protected, and memory is counted to the byte
    Given a small model tiny.safetensors
    When I call "vram-worker run tiny.safetensors --device mock"
    Then the exit code is 0
    And standard error is the line "warning: MOCK DEVICE: host memory, protects nothing"
    And the table gives "device" as "mock 0: mock device"
    And the table gives "VRAM used, sealed" as "4.50 KiB (4608 bytes)"
    And standard output says "This was the mock device: it shows how things work and protects nothing."
    And nothing is left

  @DIG-1
  Scenario Outline: A digest is the one that fsverity prints for the file
    Given a file sevens.bin of <bytes> bytes that are all 7
    When I call "vram-worker digest sevens.bin <options>"
    Then the exit code is 0
    And standard output is the line "<digest> sevens.bin"
    And standard error is empty
    And nothing is left

    Examples:
      | bytes  | options                         | digest                                                                  |
      | 0      | --block-size 4096               | sha256:3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95 |
      | 1      | --layout file                   | sha256:f30ad420d7e839002c5bfec7fe47367c7cd3759445359f0c9ac78bac40d9108f |
      | 600000 | --block-size 4096               | sha256:9a1cfc477f865d134fda852c435cb08c05a6d667d8d4be1646db9a8bde002b99 |
      | 5000   | --block-size 1024 --salt c0ffee | sha256:8de58b09d83dbcc314937eb0f168502d452fff7993fc22b327cbb29db142e353 |
      | 600000 | --block-size 1024 --salt C0FFEE | sha256:337bba2f592d7b0afca365a1e962e593db54cbe05f677df5c3e6a7cc58e1f452 |
      | 600000 | --block-size 65536              | sha256:ac4e13b29e80db0b26babe445d8b3284504b1f45a5b0f7bddf647bce7fd77cbd |

  @DIG-1 @DIG-3
  Scenario: Each file has its line, in the library's digest for the layout
    Given a small model tiny.safetensors
    And a file sevens.bin of 70000 bytes that are all 7
    When I call "vram-worker digest tiny.safetensors sevens.bin"
    Then the exit code is 0
    And standard output is
      """
      [file digest of tiny.safetensors] tiny.safetensors
      [file digest of sevens.bin] sevens.bin
      """
    When I call "vram-worker digest --layout tensors tiny.safetensors"
    Then the exit code is 0
    And standard output says "[digest of tiny.safetensors] layout:"

  @SEAL-6 @ERR-2
  Scenario: A file that cannot be read hides no other, and the exit code tells
    Given a small model tiny.safetensors
    When I call "vram-worker digest absent.bin tiny.safetensors"
    Then the exit code is 2
    And standard output is the line "[file digest of tiny.safetensors] tiny.safetensors"
    And the error says "absent.bin"
    And the error says "check the path"
    And nothing is left

  @SEAL-1 @SEAL-9
  Scenario Outline: A model with the expected digest runs, and its seal says so
    Given a small model tiny.safetensors
    When I call "vram-worker run tiny.safetensors --layout <layout> --expect [file digest of tiny.safetensors] --device [device] --json"
    Then the exit code is 0
    And the report gives shard.layout as "<layout>"
    And the report gives shard.origin as "expected"
    And the report gives shard.digest as "[<digest> of tiny.safetensors]"
    And the report gives executed as "3"
    And nothing is left

    Examples:
      | layout  | digest      |
      | tensors | digest      |
      | file    | file digest |

  @SEAL-1 @SEAL-9
  Scenario Outline: A model with another digest than expected is wiped, and both digests are told
    Given a small model tiny.safetensors
    And the audit trail is shown
    When I call "vram-worker run tiny.safetensors --layout <layout> --expect [digest of tiny.safetensors] --device [device]"
    Then the exit code is 3
    And the error says "not the expected model"
    And the error says "its digest is [file digest of tiny.safetensors]"
    And the error says "expected [digest of tiny.safetensors]"
    And the error says "check the file"
    And the trail is
      """
      manager_started vram_allocated seal_verification_failed
      vram_wiped vram_deallocated vram_seal_failed manager_draining manager_stopped
      """
    And nothing is left
    And asked for JSON it ends alike, with the same sentence and the code DIGEST_MISMATCH
    And the report has no shard
    And nothing is left

    Examples:
      | layout  |
      | tensors |
      | file    |

  @ERR-2
  Scenario: Help and version are told on standard output
    When I call "vram-worker --version"
    Then the exit code is 0
    And standard output is the line "vram-worker [version]"
    And standard error is empty
    When I call "vram-worker --help"
    Then the exit code is 0
    And standard error is empty
    And standard output says "Usage: vram-worker <COMMAND>"
    And standard output says "3    the bytes are not the expected or the sealed ones"
    And standard output says "130  ended by SIGINT, 143 by SIGTERM, 129 by SIGHUP"
    When I call "vram-worker run --help"
    Then the exit code is 0
    And standard output names the options "--layout --part-bytes --device --executes --block-size --expect --expect-sha256 --expect-file --expect-block-size --secret-file --headroom --json"
    When I call "vram-worker digest --help"
    Then the exit code is 0
    And standard output names the options "--block-size --salt --layout"

  @SEAL-8 @VER-1 @VER-7
  Scenario: A model in two parts is one set, all of it verified before anything executes
    Given a small model tiny.safetensors
    And the audit trail is shown
    When I call "vram-worker run tiny.safetensors --part-bytes 4096 --expect [file digest of tiny.safetensors] --executes 2 --device [device] --json"
    Then the exit code is 0
    And the report gives shard.digest as "[digest of tiny.safetensors]"
    And the report gives shard.origin as "expected"
    And the report gives parts.0.id as "tiny.part-0"
    And the report gives parts.0.digest as "[digest of bytes 0 to 4096 of tiny.safetensors]"
    And the report gives parts.1.bytes as "16"
    And the report gives parts.1.digest as "[digest of bytes 4096 to 4112 of tiny.safetensors]"
    And the report has no parts.2
    And the report's tensors are
      | name | min                  | max                 |
      | b    | -2.5                 | 4.0                 |
      | a    | -9223372036854775808 | 9223372036854775807 |
    And the trail is
      """
      manager_started vram_allocated vram_sealed vram_allocated vram_sealed
      seal_verified seal_verified execute_started execute_started
      seal_verified seal_verified execute_finished execute_finished execute_started execute_started
      seal_verified seal_verified execute_finished execute_finished
      vram_wiped vram_deallocated vram_wiped vram_deallocated manager_draining manager_stopped
      """
    And nothing is left

  @SEAL-1 @SEAL-8
  Scenario: The digest of one part does not vouch for the whole
    Given a small model tiny.safetensors
    And the audit trail is shown
    When I call "vram-worker run tiny.safetensors --part-bytes 4096 --expect [digest of bytes 0 to 4096 of tiny.safetensors] --device [device]"
    Then the exit code is 3
    And the error says "its digest is [file digest of tiny.safetensors]"
    And asked for JSON it ends alike, with the same sentence and the code DIGEST_MISMATCH
    And no device was opened and nothing is left

  @SCR-1 @SCR-3
  Scenario Outline: A signal ends a run in order: wiped and released first
    Given a small model tiny.safetensors
    And the audit trail is shown
    When I call "vram-worker run tiny.safetensors --executes 1000000 --device [device] --json" and send it <signal> after 2 executes
    Then the exit code is <code>
    And the report gives error.code as "INTERRUPTED"
    And the report gives error.message as "ended by <signal>; every shard was wiped and released"
    And the report counts 2 to 999999 executes
    And nothing is left
    When I call "vram-worker run tiny.safetensors --executes 1000000 --device [device]" and send it <signal> after 1 executes
    Then the exit code is <code>
    And nothing is said but an interruption by <signal>
    And the table gives "VRAM used after release" as "0 bytes"
    And nothing is left

    Examples:
      | signal  | code |
      | SIGINT  | 130  |
      | SIGTERM | 143  |

  @AUD-6
  Scenario: A name in a model or on the command line forges no line
    Given a model odd.safetensors with a tensor named "pay[LF]forged[ESC]c"
    When I call "vram-worker run odd.safetensors --device [device]"
    Then the exit code is 0
    And no line of it is forged
    And standard output says "pay\nforged"
    When I call "vram-worker run odd.safetensors --device [device] --json"
    Then the exit code is 0
    And the report gives tensors.0.name as "pay[LF]forged[ESC]c"
    And no line of it is forged
    When I call "vram-worker run absent[LF]forged[ESC]c --device [device]"
    Then the exit code is 2
    And the error says "check the path"
    And no line of it is forged
    And nothing is left
