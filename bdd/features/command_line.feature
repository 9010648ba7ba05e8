@worker
Feature: Command line
  Whoever calls vram-worker learns from its exit code, its output and one sentence what became of the weights. Nothing of them is left.

  @SEAL-1 @VER-1 @SCR-1 @AUD-1
  Scenario: The sample is sealed, verified before and after each execute, wiped and released
    When I call "vram-worker run --device [device] --executes 2 --json"
    Then the exit code is 0
    And the report gives executed as "2"
    And nothing is left but this trail
      """
      manager_started vram_allocated vram_sealed
      seal_verified execute_started
      seal_verified execute_finished execute_started
      seal_verified execute_finished
      vram_wiped vram_deallocated manager_draining manager_stopped
      """

  @RES-5 @DEV-1 @mock
  Scenario: On the mock it is said that nothing is protected
    When I call "vram-worker run --device mock"
    Then the exit code is 0
    And standard error says "warning: MOCK DEVICE: host memory, protects nothing"
    And standard output says "This was the mock device: it shows how things work and protects nothing."
    And standard output says "The shard was wiped and released: 0 bytes in use, as before."

  @DIG-1
  Scenario Outline: A digest is the one that fsverity prints for the file
    Given a file sevens.bin of <bytes> bytes that are all 7
    When I call "vram-worker digest sevens.bin <options>"
    Then the exit code is 0
    And standard output says "<digest> sevens.bin"

    Examples:
      | bytes  | options                         | digest                                                                  |
      | 0      | --block-size 4096               | sha256:3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95 |
      | 5000   | --block-size 1024 --salt c0ffee | sha256:8de58b09d83dbcc314937eb0f168502d452fff7993fc22b327cbb29db142e353 |
      | 600000 | --block-size 65536              | sha256:ac4e13b29e80db0b26babe445d8b3284504b1f45a5b0f7bddf647bce7fd77cbd |

  @SEAL-1 @SEAL-9
  Scenario: A model with the expected digest runs, and one with another is wiped
    Given a small model tiny.safetensors
    When I call "vram-worker digest tiny.safetensors"
    And I call "vram-worker run tiny.safetensors --expect [digest] --device [device] --json"
    Then the exit code is 0
    And the report gives shard.origin as "expected"
    When I call "vram-worker digest tiny.safetensors --layout tensors"
    And I call "vram-worker run tiny.safetensors --expect [digest] --device [device]"
    Then the exit code is 3
    And the error says "not the expected model"
    And nothing is left but this trail
      """
      manager_started vram_allocated seal_verification_failed
      vram_wiped vram_deallocated vram_seal_failed manager_draining manager_stopped
      """

  @SEAL-8 @VER-1 @VER-7
  Scenario: A model in two parts is one set, all of it verified before anything executes
    Given a small model tiny.safetensors
    When I call "vram-worker run tiny.safetensors --part-bytes 4096 --executes 1 --device [device] --json"
    Then the exit code is 0
    And the report gives parts.1.id as "tiny.part-1"
    And nothing is left but this trail
      """
      manager_started vram_allocated vram_sealed vram_allocated vram_sealed
      seal_verified seal_verified execute_started execute_started
      seal_verified seal_verified execute_finished execute_finished
      vram_wiped vram_deallocated vram_wiped vram_deallocated manager_draining manager_stopped
      """

  @VAL-3 @SEAL-6 @ERR-2
  Scenario Outline: What cannot be is refused with what to do, before a device is opened
    Given a small model tiny.safetensors
    And a file sevens.bin of 5000 bytes that are all 7
    When I call "vram-worker run <options>"
    Then the exit code is <code>
    And the error says "<said>"
    And no device was opened

    Examples:
      | options                                   | code | said                                  |
      | sevens.bin                                | 2    | claims a header                       |
      | absent.safetensors                        | 2    | there is no such file; check the path |
      | tiny.safetensors --block-size 3000        | 2    | power of two from 1024 to 65536       |
      | tiny.safetensors --device cuda:4000       | 4    | CUDA device 4000                      |

  @KEY-1 @KEY-3 @ERR-2
  Scenario Outline: A secret is taken where its owner alone may use it, and never shown
    Given a secret of <bytes> bytes in house-key with the permissions <permissions>
    When I call "vram-worker run --secret-file house-key --device [device]"
    Then the exit code is <code>
    And standard error says "<said>"
    And neither the secret nor its place house-key is shown

    Examples:
      | bytes | permissions | code | said                                  |
      | 32    | 600         | 0    | vram_sealed                           |
      | 32    | 644         | 2    | error: worker secret can be used      |
      | 31    | 600         | 2    | error: worker secret is 31 bytes long |
