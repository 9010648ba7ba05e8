Feature: Presented seals
  A seal is a capability that leaves the process. What comes back is believed only if this manager signed it.

  @SEAL-3
  Scenario: A seal that comes back as bytes still serves
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    When the seal part-0 comes back as bytes
    And I execute part-0
    Then the work ran
    And it read the weights llama

  @SEAL-2 @SEAL-4 @ERR-4
  Scenario Outline: A seal with a flipped bit is refused and stops nobody
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    When bit <bit> of byte <from_end> from the end of the seal part-0 is flipped
    And I execute part-0
    Then the seal is refused as forged
    And the trail says refused as forged
    And the manager is ready
    And part-1 still verifies

    # The last 32 bytes are the tag, the 8 before it the time, the digest ends 42 before the end.
    Examples:
      | bit | from_end |
      | 0   | 1        |
      | 7   | 32       |
      | 3   | 40       |
      | 5   | 43       |

  @SEAL-3 @SEAL-4
  Scenario: A seal that was cut is malformed
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    When the seal part-0 is cut by 1 byte
    Then the seal is refused as malformed
    And the manager is ready

  @SEAL-3 @SEAL-4
  Scenario: A seal that was extended is malformed
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    When the seal part-0 is extended by 1 byte
    Then the seal is refused as malformed
    And the manager is ready

  @SEAL-4
  Scenario: A seal does not serve the next manager of the same worker on the same device
    Given a manager
    And a second manager on the same device
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    When I present part-0 to the second manager
    Then the seal is refused as claims_other_epoch

  @SEAL-4 @RES-8 @two-devices
  Scenario: A seal does not serve on another device
    Given a manager
    And a second manager on another device
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    When I present part-0 to the second manager
    Then the seal is refused as claims_other_device

  @SEAL-4
  Scenario: A seal does not serve another worker
    Given a manager
    And a second manager of another worker
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    When I present part-0 to the second manager
    Then the seal is refused as claims_other_worker

  @SEAL-4 @SCR-4
  Scenario: A seal does not survive its shard, also when name and slot are used again
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    When I release part-0
    And I execute part-0
    Then it fails with STALE_HANDLE
    And the work did not run
    And the trail says refused as stale
    When I go on
    And I seal part-1 from llama
    And I execute part-0
    Then it fails with STALE_HANDLE
    And the work did not run
    And part-1 still verifies
