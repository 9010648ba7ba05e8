Feature: Freshness
  A seal may have an age. One that is too old begins nothing more until its shard was verified and sealed anew.

  @SEAL-7
  Scenario: A seal within its age executes
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama for 3600000 ms
    When I wait 50 ms
    And I execute part-0
    Then the work ran
    And it read the weights llama

  @SEAL-7
  Scenario: A seal that is too old begins nothing, but is still evidence and still releases
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama for 30 ms
    And the shard part-1 is sealed from llama
    When I wait 60 ms
    And I execute part-0
    Then the seal is refused as expired
    And the trail says refused as expired
    When I go on
    And I take a guard of part-0
    Then the seal is refused as expired
    And there is no guard
    When I go on
    And I begin the batch part-1, part-0
    Then the seal is refused as expired
    And there is no guard
    And the manager is ready
    And part-0 still verifies
    When I go on
    And I execute part-1
    Then the work ran
    When I release part-0
    Then it succeeds

  @SEAL-7 @VER-12
  Scenario: What began in time may end when it likes
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama for 1000 ms
    When I take a guard of part-0
    And I wait 1050 ms
    And the guard finishes
    Then it succeeds
    When I take a guard of part-0
    Then the seal is refused as expired

  @SEAL-7 @SEAL-4
  Scenario: Sealing anew makes the age fresh and the old seal stale
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama for 1000 ms
    When I wait 1050 ms
    And I execute part-0
    Then the seal is refused as expired
    When I go on
    And I reseal part-0
    Then it succeeds
    And the trail has, in this order: seal_verified, vram_sealed
    When I execute part-0
    Then the work ran
    And it read the weights llama
    And the old seal of part-0 is stale whatever it is used for

  @SEAL-7 @VER-5
  Scenario: A shard that has changed is not sealed anew
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama for 3600000 ms
    When bit 3 of byte 40000 of part-0 flips in VRAM
    And I reseal part-0
    Then it is an integrity failure of part-0 that covers byte 40000
    And the manager has stopped for integrity
    When I go on
    And bit 3 of byte 40000 of part-0 flips in VRAM
    And I reseal part-0
    Then it fails with MANAGER_STOPPED
    When I go on
    And I release part-0
    Then used VRAM is zero

  @SEAL-7 @VER-3
  Scenario: A shard in use is sealed anew only when its guard is gone
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama for 3600000 ms
    When I take a guard of part-0
    And I reseal part-0
    Then it fails with SHARD_BUSY
    And trying again may help
    When I go on
    And the guard finishes
    Then it succeeds
    When I reseal part-0
    Then it succeeds
    And part-0 still verifies

  @SEAL-7 @VER-1
  Scenario: No check of before counts for a seal of after
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama for 3600000 ms
    When I verify part-0
    And I reseal part-0
    And bit 3 of byte 40000 of part-0 flips in VRAM
    And I execute part-0
    Then it is an integrity failure of part-0 that covers byte 40000
    And the work did not run

  @SEAL-7 @AUD-5 @faults
  Scenario: A seal that could not be renewed is as good as it was
    Given a manager whose policy requires an audit trail
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama for 3600000 ms
    And the audit sink fails
    When I reseal part-0
    Then it fails with AUDIT_UNAVAILABLE
    When the audit sink works again
    And I execute part-0
    Then the work ran
    When the device will fail a digest
    And I reseal part-0
    Then it fails with CUDA_ERROR
    When I go on
    And I execute part-0
    Then the work ran

  @SEAL-7 @SEAL-4
  Scenario: What was released is not sealed anew
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama for 3600000 ms
    When I release part-0
    And I reseal part-0
    Then it fails with STALE_HANDLE
    And used VRAM is zero

  @SEAL-7 @RES-9
  Scenario: An engine's memory is sealed anew where it lies, and stays the shard's
    Given a manager
    And weights llama of 5000 bytes
    And an engine candle that holds llama in regions of 4000, 1000 bytes
    When I adopt the memory of candle as part-0 for 1000 ms
    And I wait 1050 ms
    And I execute part-0
    Then the seal is refused as expired
    When I go on
    And I reseal part-0
    And I execute part-0
    Then the work ran
    And it read the memory of candle
    And adopted VRAM is 5000 bytes
    And candle cannot take its memory back
    When I release part-0
    Then candle can take its memory back
    And the memory of candle is untouched
