Feature: Execution
  Work runs over verified bytes only, and its shard stays while it runs.

  @VER-1 @VER-12
  Scenario: Work reads the weights that were sealed
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When I execute part-0
    Then the work ran
    And it read the weights llama
    And the trail has, in this order: seal_verified, execute_started, execute_finished

  @VER-1
  Scenario: Work reads any range within the image
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When I read 100 bytes at 69900 of part-0
    Then it succeeds
    And it read bytes 69900 to 70000 of llama

  @VER-1 @ERR-2
  Scenario: A range that leaves the image is refused
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When I read 100 bytes at 69901 of part-0
    Then it fails with INVALID_PARAMS
    And the message contains "69901"
    And the manager is ready

  @VER-3
  Scenario: A shard is not released while it executes
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And an execution of part-0 is held open
    When I release part-0
    Then it fails with SHARD_BUSY
    And trying again may help
    And used VRAM is as before
    When I go on
    And the held execution finishes
    Then it succeeds
    When I release part-0
    Then it succeeds
    And used VRAM is zero

  @VER-5
  Scenario: A result in flight is discarded when another shard fails
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    And an execution of part-1 is held open
    When bit 0 of byte 0 of part-0 flips in VRAM
    And I verify part-0
    Then it fails with SEAL_VERIFICATION_FAILED
    When I go on
    And the held execution finishes
    Then it fails with MANAGER_STOPPED

  @VER-12 @AUD-1
  Scenario: An execution that is dropped is over, and the trail says so
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When I drop an execution of part-0 without finishing it
    Then it succeeds
    And the trail has, in this order: seal_verified, execute_started, execute_finished
    When I release part-0
    Then it succeeds

  @SCR-3
  Scenario: Work that panics takes nothing with it
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When I execute part-0 with work that panics
    And I execute part-0
    Then the work ran
    When I release part-0
    Then used VRAM is zero
