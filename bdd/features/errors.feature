Feature: Errors
  An error names the thing, says what to do, and shows neither raw input nor secrets.

  @VAL-1
  Scenario Outline: A bad name is refused and quoted safely
    When I name a shard "<name>"
    Then it fails with INVALID_PARAMS
    And the message contains "shard id"

    Examples:
      | name             |
      |                  |
      | .hidden          |
      | ../etc/passwd    |
      | a b              |
      | new[LF]line      |
      | zero[NUL]byte    |

  @VAL-1
  Scenario: A good name is taken
    When I name a shard "llama-8b.part_0"
    Then it succeeds

  @VAL-2
  Scenario Outline: Bad tree parameters name the field
    When I choose blocks of <block> bytes and a salt of <salt> bytes
    Then it fails with INVALID_PARAMS
    And the message contains "<field>"

    Examples:
      | block  | salt | field      |
      | 512    | 0    | block size |
      | 1000   | 0    | block size |
      | 131072 | 0    | block size |
      | 4096   | 33   | salt       |

  @VAL-2
  Scenario: Good tree parameters are taken
    When I choose blocks of 65536 bytes and a salt of 32 bytes
    Then it succeeds

  @ERR-2 @faults
  Scenario: A failed device call names its operation and does not stop the manager
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    And the device will fail a synchronisation
    When I execute part-0
    Then it fails with CUDA_ERROR
    And the message names a wait
    And the message contains "999"
    And the work did not run
    And trying again may help
    And the manager is ready
    And part-0 still verifies
