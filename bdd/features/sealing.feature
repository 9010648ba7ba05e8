Feature: Sealing
  A shard is loaded into device memory, digested there, compared, and signed; or nothing of it is left.

  @SEAL-1 @RES-1 @DIG-1
  Scenario: Weights are sealed and found again
    Given a manager
    And weights llama of 70000 bytes
    When I seal part-0 from llama
    Then it succeeds
    And the seal part-0 speaks of 70000 bytes with the digest of llama
    And the driver counts the same bytes as the ledger

  @DIG-1
  Scenario Outline: Every length and block size has one digest on host and device
    Given a manager with blocks of <block> bytes and the salt "<salt>"
    And weights llama of <bytes> bytes
    When I seal part-0 from llama
    Then it succeeds
    And the seal part-0 speaks of <bytes> bytes with the digest of llama

    Examples:
      | block | salt      | bytes  |
      | 1024  |           | 1      |
      | 1024  |           | 1024   |
      | 1024  | model-zoo | 1025   |
      | 4096  |           | 4095   |
      | 4096  | s         | 600000 |
      | 65536 |           | 200000 |

  @SEAL-9
  Scenario: A seal says whose word it rests on
    Given a manager
    And weights llama of 5000 bytes
    When I seal measured from llama
    And I seal expected from llama expecting the digest of llama
    Then it succeeds
    And the seal measured says measured
    And the seal expected says expected

  @SEAL-1 @SEAL-9
  Scenario: Weights that are not the expected ones are refused and wiped
    Given a manager
    And weights llama of 50000 bytes
    And weights poisoned that differ from llama in bit 0 of byte 49999
    When I seal part-0 from poisoned expecting the digest of llama
    Then it fails with DIGEST_MISMATCH
    And the error tells the expected digest from the actual one
    And nothing was sealed and nothing is left of it
    And the manager is ready
    And part-0 can be sealed from llama after all

  @SEAL-1 @faults
  Scenario: An upload that arrives corrupted is noticed without an expected digest
    Given a manager
    And weights llama of 50000 bytes
    And the device will corrupt an upload
    When I seal part-0 from llama
    Then it fails with DIGEST_MISMATCH
    And nothing was sealed and nothing is left of it
    And part-0 can be sealed from llama after all

  @SEAL-6
  Scenario: A file is sealed as it is
    Given a manager
    And weights llama of 123457 bytes
    When I seal part-0 from a file with the weights llama
    Then it succeeds
    And the seal part-0 speaks of 123457 bytes with the digest of llama

  @SEAL-6
  Scenario: A file that shrinks is refused
    Given a manager
    When I seal part-0 from a file that shrinks to 4096 bytes after it was opened
    Then it fails with MODEL_LOAD_FAILED
    And the message contains "early"
    And nothing was sealed and nothing is left of it

  @SEAL-6
  Scenario Outline: A reader that is not as long as it says is refused
    Given a manager
    When I seal part-0 from a reader that says <said> bytes and has <has>
    Then it fails with MODEL_LOAD_FAILED
    And the message contains "the reader"
    And nothing was sealed and nothing is left of it

    Examples:
      | said   | has    |
      | 70000  | 69999  |
      | 70000  | 70001  |
      | 1      | 0      |

  @SEAL-6 @ERR-2
  Scenario: A missing file is named
    Given a manager
    When I open a missing file
    Then it fails with MODEL_LOAD_FAILED
    And the message contains "no such file"
    And trying again is pointless

  @VAL-2
  Scenario: There is nothing to seal in nothing
    Given a manager
    And weights nothing of 0 bytes
    When I seal part-0 from nothing
    Then it fails with INVALID_PARAMS
    And the message contains "shard length"
    And nothing was sealed and nothing is left of it

  @VAL-1
  Scenario: A name is live once
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    When I seal part-0 from llama
    Then it fails with INVALID_PARAMS
    And the message contains "part-0"
    And used VRAM is as before
    And part-0 still verifies

  @SEAL-9
  Scenario: A model reference is signed with the shard
    Given a manager
    And weights llama of 5000 bytes
    When I seal part-0 from llama as a part of the model llama-8b.r3
    Then it succeeds
    And the seal part-0 names the model llama-8b.r3

  @DEV-5 @AUD-1
  Scenario: Sealed memory is mapped read-only, and the trail says so
    Given a manager
    And weights llama of 70000 bytes
    When I seal part-0 from llama
    Then it succeeds
    And the trail says whether part-0 is write-protected: true
    And the manager counts 1 write-protected shard
    When I execute part-0
    Then it read the weights llama

  @DEV-5 @AUD-1 @faults
  Scenario: What the driver does not confirm is not claimed
    Given a manager
    And weights llama of 70000 bytes
    And the device will not confirm a switch of access
    When I seal part-0 from llama
    Then it succeeds
    And the trail says whether part-0 is write-protected: false
    And the manager counts 0 write-protected shards
    When I release part-0
    Then it succeeds
    And the device has nothing left and freed nothing unwiped

  @DEV-5 @AUD-1 @writable
  Scenario: A device without read-only memory seals all the same, and the trail says so
    Given a device that cannot map memory read-only
    And a manager
    And weights llama of 70000 bytes
    When I seal part-0 from llama
    Then it succeeds
    And the trail says whether part-0 is write-protected: false
    When I execute part-0
    Then it read the weights llama

  @DEV-5 @SEAL-1 @RES-6 @faults
  Scenario: A switch to read-only that fails leaves nothing
    Given a manager
    And weights llama of 70000 bytes
    And the device will refuse to switch the access
    When I seal part-0 from llama
    Then it fails with CUDA_ERROR
    And nothing was sealed and nothing is left of it
    And the manager is ready

  @DEV-5 @SEAL-1 @faults
  Scenario: Bytes that change with the switch are not signed
    Given a manager
    And weights llama of 70000 bytes
    And the device will change byte 4321 with a switch of access
    When I seal part-0 from llama expecting the digest of llama
    Then it fails with DIGEST_MISMATCH
    And nothing was sealed and nothing is left of it
    And the manager is ready
